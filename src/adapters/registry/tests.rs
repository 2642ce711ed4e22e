//! services.json as others find it afterwards: one row touched, never anything but valid JSON.

use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn map(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        other => panic!("not an object: {other}"),
    }
}

fn home_with(text: &str) -> tempfile::TempDir {
    let home = tempfile::tempdir().expect("a folder");
    fs::write(home.path().join(FILE), text).expect("a file");
    home
}

fn text(home: &Path) -> String {
    fs::read_to_string(home.join(FILE)).expect("services.json")
}

fn put(home: &Path, name: &str, fields: Value) -> Result<bool, PortError> {
    FileRegistry.put(home, name, &map(fields), &Map::new())
}

#[test]
fn a_row_is_made_with_its_folder_and_seed() {
    let parent = tempfile::tempdir().expect("a folder");
    let home = parent.path().join("a/home");
    assert_eq!(FileRegistry.rows(&home), Ok(Vec::new()));
    assert_eq!(FileRegistry.remove(&home, "vault"), Ok(false));
    assert!(!home.exists(), "looking makes nothing");
    let seed = map(json!({ "port": 1, "health": "/health", "name": "other" }));
    assert_eq!(FileRegistry.put(&home, "vault", &map(json!({ "port": 1940 })), &seed), Ok(true));
    let wanted = "{\n  \"services\": [\n    {\n      \"name\": \"vault\",\n      \"port\": 1940,\n      \"health\": \"/health\"\n    }\n  ]\n}\n";
    assert_eq!(text(&home), wanted);
    let mode = |path: &Path| fs::metadata(path).expect("it is there").mode() & 0o777;
    assert_eq!((mode(&home), mode(&home.join(FILE)), mode(&home.join(LOCK))), (0o700, 0o600, 0o600));
    assert!(!home.join(NEW).exists());
    // The seed is for new rows only.
    assert_eq!(FileRegistry.put(&home, "vault", &Map::new(), &map(json!({ "health": "/other" }))), Ok(false));
}

#[test]
fn one_row_changes_and_the_rest_stays_in_its_order() {
    let before = r#"{"version":3,"services":[7,{"port":"x","name":"a","zeta":[1.50,null]},{"name":"b","port":1941,"own":{"k":1}},{"no":"name"}],"end":true}"#;
    let home = home_with(before);
    assert_eq!(put(home.path(), "b", json!({ "port": 1942, "name": "ignored" })), Ok(true));
    let value: Value = serde_json::from_str(&text(home.path())).expect("JSON");
    assert_eq!(value.to_string(), before.replace("1941", "1942").replace("1.50", "1.5"));
    let modified = || fs::metadata(home.path().join(FILE)).expect("a file").ino();
    let inode = modified();
    assert_eq!(put(home.path(), "b", json!({ "port": 1942 })), Ok(false));
    assert_eq!(modified(), inode, "what is there already is not written again");
    let rows = FileRegistry.rows(home.path()).expect("rows");
    let seen: Vec<_> = rows.iter().map(|row| (row.name.as_str(), row.port)).collect();
    assert_eq!(seen, [("a", None), ("b", Some(1942))]);
    assert_eq!(rows[1].rest["own"], json!({ "k": 1 }));
    assert_eq!(FileRegistry.remove(home.path(), "b"), Ok(true));
    assert_eq!(FileRegistry.remove(home.path(), "b"), Ok(false));
    let value: Value = serde_json::from_str(&text(home.path())).expect("JSON");
    assert_eq!(value["services"], json!([7, { "port": "x", "name": "a", "zeta": [1.5, null] }, { "no": "name" }]));
}

#[test]
fn a_port_is_a_number_from_1_to_65535() {
    let home = home_with(
        r#"{"services":[{"name":"a","port":0},{"name":"b","port":65536},{"name":"c","port":-1},{"name":"d","port":65535},{"name":"e"}]}"#,
    );
    let ports: Vec<_> = FileRegistry.rows(home.path()).expect("rows").iter().map(|row| row.port).collect();
    assert_eq!(ports, [None, None, None, Some(65535), None]);
}

#[test]
fn what_is_no_listing_is_never_overwritten() {
    for broken in
        ["", "{", "[]", "{}", "null", r#"{"services":{}}"#, "\u{feff}{\"services\":[]}", "{\"services\":[]} x"]
    {
        let home = home_with(broken);
        assert!(matches!(FileRegistry.rows(home.path()), Err(PortError::Never(_))), "{broken}");
        assert!(matches!(put(home.path(), "a", json!({ "port": 1 })), Err(PortError::Never(_))), "{broken}");
        assert!(matches!(FileRegistry.remove(home.path(), "a"), Err(PortError::Never(_))), "{broken}");
        assert_eq!(text(home.path()), broken);
    }
    let home = tempfile::tempdir().expect("a folder");
    fs::create_dir(home.path().join(FILE)).expect("a folder in the place of the file");
    assert!(matches!(FileRegistry.rows(home.path()), Err(PortError::Retry(_))));
}

#[test]
fn mode_and_symbolic_link_survive() {
    let home = tempfile::tempdir().expect("a folder");
    let elsewhere = home_with(r#"{"services":[]}"#);
    let real = elsewhere.path().join(FILE);
    fs::set_permissions(&real, Permissions::from_mode(0o640)).expect("own file");
    symlink(&real, home.path().join(FILE)).expect("a link");
    assert_eq!(put(home.path(), "a", json!({ "port": 1 })), Ok(true));
    assert!(home.path().join(FILE).is_symlink());
    assert_eq!(fs::metadata(&real).expect("the file").mode() & 0o777, 0o640);
    assert_eq!(FileRegistry.rows(elsewhere.path()).expect("rows").len(), 1);
}

#[test]
fn a_file_that_a_crash_left_behind_is_in_nobodys_way() {
    let home = home_with(r#"{"services":[]}"#);
    fs::write(home.path().join(NEW), "half a fi").expect("a file");
    assert_eq!(put(home.path(), "a", json!({ "port": 1 })), Ok(true));
    assert!(!home.path().join(NEW).exists());
}

#[test]
fn a_write_that_comes_between_is_merged() {
    let home = home_with(r#"{"services":[{"name":"a","port":1}]}"#);
    let path = home.path().join(FILE);
    let edit = |listing: &mut Listing| listing.put("a", &map(json!({ "port": 2 })), &Map::new());
    let known = read(&path).expect("a listing");
    let mut ours = known.listing.clone();
    edit(&mut ours);
    // Before the check: nothing is written.
    fs::write(&path, r#"{"services":[{"name":"a","port":1},{"name":"b"}]}"#).expect("a file");
    let outrun = swap(&path, known.bytes.as_deref(), &ours, &edit).expect("a swap");
    assert!(matches!(outrun, Swap::Outrun));
    assert!(text(home.path()).contains(r#"{"name":"b"}"#) && !home.path().join(NEW).exists());
    // Two writers that both find no file.
    fs::remove_file(&path).expect("own file");
    fs::write(&path, r#"{"services":[{"name":"c"}]}"#).expect("a file");
    assert!(matches!(swap(&path, None, &ours, &edit).expect("a swap"), Swap::Outrun));
    assert!(text(home.path()).contains(r#"{"name":"c"}"#));
}

struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A module as they are: reads, changes its own row, renames a new file into place, locks nothing.
fn module_like_write(home: &Path, name: &str, beat: u64) {
    let path = home.join(FILE);
    let mut root: Value = serde_json::from_slice(&fs::read(&path).expect("a file")).expect("never anything but JSON");
    let rows = root["services"].as_array_mut().expect("a list");
    match rows.iter_mut().find(|row| row["name"] == name) {
        Some(row) => row["beat"] = json!(beat),
        None => rows.push(json!({ "name": name, "beat": beat })),
    }
    let new = home.join(format!("{FILE}.tmp-{name}-{beat}"));
    fs::write(&new, serde_json::to_string_pretty(&root).expect("JSON")).expect("a file");
    fs::rename(&new, &path).expect("a rename");
}

#[test]
fn writers_without_locks_do_not_break_the_file_and_lose_nothing_to_us() {
    const BEATS: u64 = 300;
    let home = home_with(r#"{"services":[{"name":"vault","port":1}]}"#);
    let home = home.path();
    let done = AtomicBool::new(false);
    let writes = thread::scope(|scope| {
        let ours: Vec<_> = (0..2)
            .map(|which| {
                let done = &done;
                scope.spawn(move || {
                    let mut port = 0_u16;
                    let mut writes = 0;
                    while !done.load(Ordering::Relaxed) {
                        port = port % 60_000 + 1;
                        let name = format!("own-{which}");
                        match put(home, &name, json!({ "port": port })) {
                            Ok(wrote) => writes += u32::from(wrote),
                            Err(PortError::Retry(_)) => {}
                            Err(error) => panic!("{error}"),
                        }
                    }
                    writes
                })
            })
            .collect();
        let reader = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                FileRegistry.rows(home).expect("always valid JSON");
            }
        });
        {
            // Also when this thread panics, or the others would go on for ever.
            let _done = SetOnDrop(&done);
            for beat in 1..=BEATS {
                module_like_write(home, "module", beat);
            }
        }
        reader.join().expect("the reader");
        ours.into_iter().map(|one| one.join().expect("a writer")).sum::<u32>()
    });
    assert!(writes > 0, "nothing was put to the test");
    // What a lock-less writer overwrote of ours, the next look finds and puts again.
    for which in 0..2 {
        put(home, &format!("own-{which}"), json!({ "port": 7 })).expect("nobody else writes now");
    }
    let rows = FileRegistry.rows(home).expect("rows");
    let row = |name: &str| &rows.iter().find(|row| row.name == name).unwrap_or_else(|| panic!("{name}")).rest;
    assert_eq!((&row("own-0")["port"], &row("own-1")["port"]), (&json!(7), &json!(7)));
    assert_eq!(row("vault")["port"], 1);
    assert_eq!(row("module")["beat"], json!(BEATS), "the module's last word was lost");
    assert!(!home.join(NEW).exists());
}

/// Any JSON that may stand in a services list.
fn any_row() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (0..70_000).prop_map(Value::from),
        ".{0,6}".prop_map(Value::from)
    ];
    let fields = prop::collection::btree_map("[a-e]|port|name", leaf.clone(), 0..5);
    let object = (fields, prop::option::of("[a-c]")).prop_map(|(fields, name)| {
        let mut row: Map<String, Value> = fields.into_iter().collect();
        if let Some(name) = name {
            row.insert("name".to_owned(), name.into());
        }
        Value::Object(row)
    });
    prop_oneof![4 => object, 1 => leaf]
}

fn services(bytes: &[u8]) -> Vec<Value> {
    let root: Value = serde_json::from_slice(bytes).expect("JSON");
    root["services"].as_array().expect("a list").clone()
}

proptest! {
    #[test]
    fn put_and_remove_touch_exactly_one_name(
        rows in prop::collection::vec(any_row(), 0..6),
        name in "[a-d]",
        port in 1_u16..,
        extra in prop::option::of("[a-e]"),
    ) {
        let before = json!({ "first": 1, "services": rows, "last": [2] });
        let mut listing = Listing::parse(before.to_string().as_bytes()).expect("a listing");
        let mut fields = map(json!({ "port": port }));
        if let Some(extra) = extra {
            fields.insert(extra, json!("new"));
        }
        let index = rows.iter().position(|row| row["name"] == *name);
        let changed = listing.put(&name, &fields, &Map::new());
        let after = services(&listing.to_bytes());
        let touched = index.unwrap_or(rows.len());
        prop_assert_eq!(after.len(), rows.len().max(touched + 1));
        for (at, row) in after.iter().enumerate().filter(|(at, _)| *at != touched) {
            prop_assert_eq!(row, &rows[at]);
        }
        let mut wanted = index.map_or_else(|| map(json!({ "name": name })), |at| map(rows[at].clone()));
        for (field, value) in &fields {
            wanted.insert(field.clone(), value.clone());
        }
        prop_assert_eq!(changed, index.is_none_or(|at| rows[at] != Value::Object(wanted.clone())));
        prop_assert_eq!(&after[touched], &Value::Object(wanted));
        prop_assert!(!listing.put(&name, &fields, &Map::new()), "a second put changes nothing");
        prop_assert!(listing.remove(&name));
        prop_assert!(!listing.remove(&name));
        let left = services(&listing.to_bytes());
        let others: Vec<_> = rows.iter().filter(|row| row["name"] != *name).cloned().collect();
        prop_assert_eq!(left, others);
        let root: Value = serde_json::from_slice(&listing.to_bytes()).expect("JSON");
        prop_assert_eq!((&root["first"], &root["last"]), (&json!(1), &json!([2])));
    }
}
