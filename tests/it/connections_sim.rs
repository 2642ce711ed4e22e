//! Connections in a pretend world: every step of a story is crashed before and after each port call, vaults are moody, others meddle,
//! tokens are revoked and keys rotated. `SIM_SEEDS=N` widens the random lives, `SIM_SEED=S` replays one.

use std::collections::BTreeMap;
use std::path::Path;

use super::connections_stage::{Loan, Scene, Tie, sink_service, vault, vault_service};
use super::sim::scratch;
use trueup::engine::Mode;
use trueup::model::unit::Millis;
use trueup::sim::fate::Side;
use trueup::sim::story::hub;
use trueup::sim::town::Mood;

/// One step of a story: what changes, and whether events may be refused because of it.
struct Step {
    what: &'static str,
    act: fn(&mut Scene<'_>),
    refuses: bool,
    /// What must be true then, beside what always must.
    then: fn(&Scene<'_>) -> Result<(), String>,
}

const fn step(what: &'static str, act: fn(&mut Scene<'_>)) -> Step {
    Step { what, act, refuses: false, then: |_| Ok(()) }
}

/// Events of what is not declared any more are refused, and so are those whose token a person revoked, until the next look.
const fn refusing(what: &'static str, act: fn(&mut Scene<'_>)) -> Step {
    Step { what, act, refuses: true, then: |_| Ok(()) }
}

fn begin(scene: &mut Scene<'_>) {
    scene.begin();
    for name in ["default", "lab"] {
        scene.story.write(&format!("v-{name}.yaml"), &vault(name, "vault", "Retain"));
    }
    scene.declare(Tie::new("inbox", "default"));
}

/// Plays these steps one after the other; each is crashed before and after every port call on the way.
fn play(dir: &Path, steps: &[Step]) -> u32 {
    let mut deaths = 0;
    let mut before = Scene::new(7, dir);
    for Step { what, act, refuses, then } in steps {
        let fork = || {
            let mut scene = before.fork();
            act(&mut scene);
            scene
        };
        let check = |scene: &Scene<'_>, die, how: &str| {
            scene.live(die, 0).unwrap_or_else(|why| panic!("{what}, {how}:\n  {why}"));
            then(scene).unwrap_or_else(|why| panic!("{what}, {how}: {why}"));
            let refused = scene.refused();
            assert!(*refuses || refused.is_empty(), "{what}, {how}: refused {refused:?}");
        };
        let plain = fork();
        plain.story.fate.reborn(None, 0, 7);
        plain.story.run(Mode::default(), Millis(60_000)).expect("a plain run");
        let calls = plain.story.fate.calls();
        assert!(calls > 3, "{what} made {calls} calls");
        // A death after a call is one before the next: nothing changes the world between them.
        for call in 0..=calls {
            check(&fork(), Some((call, Side::Before)), &format!("death before call {call}"));
            deaths += 1;
        }
        let scene = fork();
        check(&scene, None, "without a crash");
        before = scene;
        before.story.earth.borrow_mut().town.bustling = true;
    }
    deaths
}

#[test]
fn a_crash_at_any_call_while_a_connection_is_made_and_edited_leaves_nothing_behind() {
    let dir = scratch();
    let steps = [
        step("declared", begin),
        step("another filter", |scene| {
            scene.change("inbox", |tie| tie.filter = "{ tags: [ in ], has_content: true }".to_owned());
        }),
        step("another vault", |scene| scene.change("inbox", |tie| tie.vault = "lab".to_owned())),
        step("direct", |scene| scene.change("inbox", |tie| tie.direct = true)),
        step("durable", |scene| scene.change("inbox", |tie| tie.direct = false)),
    ];
    assert!(play(dir.path(), &steps) > 100);
}

#[test]
fn a_crash_at_any_call_while_a_connection_is_suspended_and_renamed_leaves_nothing_behind() {
    let dir = scratch();
    let steps = [
        step("declared", begin),
        step("suspended", |scene| scene.change("inbox", |tie| tie.suspended = true)),
        step("direct and suspended", |scene| scene.change("inbox", |tie| tie.direct = true)),
        step("direct", |scene| scene.change("inbox", |tie| tie.suspended = false)),
        step("renamed", |scene| {
            scene.remove("inbox");
            scene.declare(Tie::new("post", "default"));
        }),
        step("renamed, with the name of its trigger", |scene| {
            let old = scene.declared.ties.get("post").expect("it is declared").trigger();
            scene.remove("post");
            scene.declare(Tie { trigger_name: Some(old), ..Tie::new("mail", "default") });
        }),
        step("removed", |scene| scene.remove("mail")),
        step("back", |scene| scene.declare(Tie::new("mail", "default"))),
    ];
    assert!(play(dir.path(), &steps) > 150);
}

#[test]
fn a_crash_at_any_call_while_sinks_are_told_leaves_nothing_behind() {
    let dir = scratch();
    let steps = [
        step("declared", |scene| {
            begin(scene);
            scene.story.write("postbox.yaml", &sink_service("postbox", 2004));
        }),
        step("a channel", |scene| scene.change("inbox", |tie| tie.channel = Some("main".to_owned()))),
        step("another channel", |scene| scene.change("inbox", |tie| tie.channel = Some("other".to_owned()))),
        step("another sink", |scene| scene.change("inbox", |tie| tie.sink = "postbox".to_owned())),
        step("the sink forgot", |scene| {
            let mut earth = scene.story.earth.borrow_mut();
            earth.town.sinks.values_mut().for_each(|sink| sink.entries.clear());
        }),
        step("direct and suspended", |scene| {
            scene.change("inbox", |tie| (tie.direct, tie.suspended) = (true, true));
        }),
        step("back", |scene| scene.change("inbox", |tie| (tie.direct, tie.suspended) = (false, false))),
        step("no channel", |scene| scene.change("inbox", |tie| tie.channel = None)),
        step("a channel again", |scene| scene.change("inbox", |tie| tie.channel = Some("main".to_owned()))),
        step("removed", |scene| scene.remove("inbox")),
    ];
    assert!(play(dir.path(), &steps) > 200);
}

#[test]
fn a_crash_at_any_call_while_access_is_lent_leaves_nothing_behind() {
    fn loan(to: &str, key: &str, vault: &str) -> Loan {
        Loan { name: "notes".to_owned(), to: to.to_owned(), key: key.to_owned(), vault: vault.to_owned() }
    }
    let dir = scratch();
    let steps = [
        step("declared", begin),
        step("lent", |scene| scene.lend(loan("mailbox", "notes", "default"))),
        step("another vault", |scene| scene.lend(loan("mailbox", "notes", "lab"))),
        step("another key", |scene| scene.lend(loan("mailbox", "drafts", "lab"))),
        step("another service", |scene| {
            scene.story.write("postbox.yaml", &sink_service("postbox", 2004));
            scene.lend(loan("postbox", "drafts", "lab"));
        }),
        step("the key rotated", |scene| scene.story.earth.borrow_mut().tokens.rotate(false)),
        step("revoked", |scene| scene.story.earth.borrow_mut().revoke_all("notes")),
        step("a connection of events", |scene| {
            scene.remove("notes");
            scene.declare(Tie { channel: Some("main".to_owned()), ..Tie::new("notes", "lab") });
        }),
        // Under one name, what sent events is something else from now on.
        refusing("and lent again", |scene| {
            scene.remove("notes");
            scene.lend(loan("mailbox", "notes", "default"));
        }),
        step("removed", |scene| scene.remove("notes")),
    ];
    assert!(play(dir.path(), &steps) > 200);
}

fn days(count: u64) -> Millis {
    Millis(count * 86_400_000)
}

#[test]
fn a_crash_at_any_call_while_a_connection_is_healed_leaves_nothing_behind() {
    let dir = scratch();
    let steps = [
        step("declared", begin),
        step("the trigger is gone", |scene| scene.story.earth.borrow_mut().lose_triggers("vault", "default")),
        // Until the next look, what somebody else wrote is what the vault does.
        refusing("edited", |scene| scene.story.earth.borrow_mut().meddle("vault", "default", true)),
        refusing("overwritten", |scene| scene.story.earth.borrow_mut().meddle("vault", "default", false)),
        refusing("revoked", |scene| scene.story.earth.borrow_mut().revoke_all("inbox")),
        step("the token ends soon", |scene| scene.story.pass(days(61))),
        refusing("the token has ended", |scene| scene.story.pass(days(91))),
        step("the key is retired", |scene| scene.story.earth.borrow_mut().tokens.rotate(false)),
        refusing("the key is dropped", |scene| scene.story.earth.borrow_mut().tokens.rotate(true)),
        refusing("an old copy of the vault", |scene| {
            let copy = scene.story.earth.borrow_mut().vault("vault", "default").clone();
            scene.story.earth.borrow_mut().revoke_all("inbox");
            scene.live(None, 0).expect("another token");
            scene.story.earth.borrow_mut().rewind("vault", "default", &copy);
        }),
        step("another origin", |scene| {
            scene.story.write("hub.yaml", &hub().replace("spec: {}", "spec: { origin: \"https://a.example\" }"));
        }),
        // What the old origin signed does not count any more when the new one is told.
        refusing("yet another origin", |scene| {
            scene.story.write("hub.yaml", &hub().replace("spec: {}", "spec: { origin: \"https://b.example\" }"));
        }),
    ];
    assert!(play(dir.path(), &steps) > 200);
}

#[test]
fn a_crash_at_any_call_while_both_ends_go_leaves_nothing_behind() {
    let dir = scratch();
    let steps = [
        step("declared", |scene| {
            begin(scene);
            scene.story.write("attic.yaml", &vault_service("attic", 2005));
            scene.story.write("v-old.yaml", &vault("old", "attic", "Retain"));
            scene.declare(Tie { service: "attic".to_owned(), ..Tie::new("dust", "old") });
        }),
        step("the vault's service goes with its connection", |scene| {
            scene.remove("dust");
            scene.unlink("v-old.yaml");
            scene.unlink("attic.yaml");
        }),
        step("a vault is made", |scene| {
            scene.story.write("v-new.yaml", &vault("new", "vault", "Delete"));
            scene.declare(Tie::new("fresh", "new"));
        }),
        Step {
            then: |scene| there(scene, "new", true),
            ..step("its document has another name", |scene| {
                scene.unlink("v-new.yaml");
                let text =
                    vault("other", "vault", "Delete").replace("service: vault", "service: vault, vaultName: new");
                scene.story.write("v-other.yaml", &text);
            })
        },
        Step {
            then: |scene| there(scene, "new", false),
            ..step("it goes, with its connection", |scene| {
                scene.remove("fresh");
                scene.unlink("v-other.yaml");
            })
        },
        step("the sink goes with its connection", |scene| {
            scene.change("inbox", |tie| tie.channel = Some("main".to_owned()));
            scene.live(None, 0).expect("a channel");
            scene.remove("inbox");
            scene.unlink("mailbox.yaml");
            scene.story.earth.borrow_mut().town.sinks.clear();
        }),
    ];
    assert!(play(dir.path(), &steps) > 100);
}

fn there(scene: &Scene<'_>, vault: &str, wanted: bool) -> Result<(), String> {
    let is = scene.story.earth.borrow().town.vaults.keys().any(|(_, name)| name == vault);
    if is == wanted { Ok(()) } else { Err(format!("the vault {vault} is there: {is}")) }
}

/// One life: people edit, vaults are moody, others meddle, and we die.
fn life(seed: u64, dir: &Path) -> Result<u64, String> {
    let mut scene = Scene::new(seed, dir);
    scene.begin();
    scene.story.write("hub.yaml", &hub().replace("spec: {}", "spec: { prune: { maxCount: 20 } }"));
    for name in ["default", "lab"] {
        scene.story.write(&format!("v-{name}.yaml"), &vault(name, "vault", "Retain"));
    }
    let earth = scene.story.earth.clone();
    let roll = |n: u64| earth.borrow_mut().roll() % n;
    let mut copies = BTreeMap::new();
    for _ in 0..16 {
        let name = ["inbox", "post", "news"][roll(3) as usize];
        let at = ["default", "lab"][roll(2) as usize];
        match roll(16) {
            0..=4 => {
                let channel = (roll(3) == 0).then(|| ["main", "other"][roll(2) as usize].to_owned() + name);
                let (direct, suspended) = (roll(3) == 0, roll(4) == 0);
                let filter = ["{ tags: [ in ] }", "{ tags: [ in ], has_content: true }"][roll(2) as usize].to_owned();
                scene.declare(Tie { direct, suspended, filter, channel, ..Tie::new(name, at) });
            }
            5 => scene.remove(name),
            6 => {
                let key = ["notes", "drafts"][roll(2) as usize].to_owned();
                let loan = Loan { name: "lent".to_owned(), to: "mailbox".to_owned(), key, vault: at.to_owned() };
                scene.lend(loan);
            }
            7 => scene.remove("lent"),
            8 => earth.borrow_mut().meddle("vault", at, seed.is_multiple_of(2)),
            9 => earth.borrow_mut().lose_triggers("vault", at),
            10 => earth.borrow_mut().revoke_all(name),
            11 => earth.borrow_mut().tokens.rotate(seed.is_multiple_of(3)),
            12 => {
                if let Some(pid) = scene.story.pid(["vault", "mailbox"][roll(2) as usize]) {
                    earth.borrow_mut().kill(pid);
                }
            }
            13 => {
                let copy = earth.borrow_mut().vault("vault", at).clone();
                match copies.remove(at) {
                    Some(old) => earth.borrow_mut().rewind("vault", at, &old),
                    None => drop(copies.insert(at, copy)),
                }
            }
            14 => {
                let number = roll(1_000);
                earth.borrow_mut().foreign_trigger("vault", at, &format!("conn_{number}"));
            }
            _ => scene.story.pass(days(roll(40))),
        }
        let mood = [Mood::Lost, Mood::Twice, Mood::Late, Mood::Garbled, Mood::Status(500)][roll(5) as usize];
        if roll(3) == 0 {
            earth.borrow_mut().town.moods.push_back(mood);
        }
        let moody = [0, 0, 150][roll(3) as usize];
        earth.borrow_mut().town.moody = moody;
        let bustling = roll(2) == 0;
        earth.borrow_mut().town.bustling = bustling;
        let die = (roll(2) == 0).then(|| (roll(80), if roll(2) == 0 { Side::Before } else { Side::After }));
        scene.story.fate.reborn(die, [0, 20, 150][roll(3) as usize], seed);
        let _ = scene.story.run(Mode::default(), Millis(roll(20_000)));
        scene.story.check()?;
    }
    scene.rest()?;
    let now = earth.borrow().now.0;
    Ok(now)
}

#[test]
fn random_lives_of_connections_leave_nothing_behind_and_touch_nothing_of_others() {
    #[expect(clippy::disallowed_methods, reason = "a test may be told its seed")]
    let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok());
    let seeds: Vec<u64> = match number("SIM_SEED") {
        Some(seed) => vec![seed],
        None => (1..=number("SIM_SEEDS").unwrap_or(100)).collect(),
    };
    let dir = scratch();
    let lives = seeds.iter().filter_map(|seed| Some((seed, life(*seed, dir.path()).err()?)));
    let failed: Vec<String> =
        lives.map(|(seed, why)| format!("SIM_SEED={seed} cargo test random_lives_of_connections: {why}")).collect();
    let few = failed.iter().take(8).cloned().collect::<Vec<_>>().join("\n");
    assert!(failed.is_empty(), "{} of {} lives failed:\n{few}", failed.len(), seeds.len());
}
