//! What is decided of a StorageBackend.

use std::path::{Path, PathBuf};

use super::inputs::{place, where_is};
use super::plan::{Action, View, plan};
use super::spec::StorageBackendSpec;
use crate::model::condition::Reason;
use crate::model::problem::{Code, Problem};
use crate::model::secret::Secret;
use crate::model::span::Span;
use crate::model::time::Timestamp;
use crate::ports::blobs::{Location, Tally};
use crate::ports::storage::{Health, Place};

const KEY: [u8; 32] = [7; 32];

fn spec(text: serde_json::Value) -> StorageBackendSpec {
    serde_json::from_value(text).expect("a spec")
}

fn folder() -> StorageBackendSpec {
    spec(serde_json::json!({ "fs": { "path": "../blobs" } }))
}

fn bucket() -> StorageBackendSpec {
    spec(serde_json::json!({ "s3": {
        "endpoint": "http://127.0.0.1:9000/", "bucket": "blobs", "prefix": "home",
        "accessKeyId": { "env": "ID" }, "secretAccessKey": { "file": "s3" },
    } }))
}

fn placed(spec: &StorageBackendSpec, secrets: &[&str]) -> Place {
    let secrets = secrets.iter().map(|text| Secret::new((*text).to_owned())).collect();
    place(spec, Path::new("/tree/manifests"), secrets, &KEY)
}

fn view<'a>(place: &'a Result<Place, Box<Problem>>, health: Option<&'a Health>) -> View<'a> {
    View {
        spec: None,
        leaves: false,
        owned: true,
        changed: false,
        place: Some(place),
        assumed: false,
        health,
        tally: Tally::default(),
        in_use: false,
        drains: true,
    }
}

#[test]
fn paths_start_from_the_file_and_a_bucket_keeps_its_parts() {
    let location = placed(&folder(), &[]).location;
    assert_eq!(location, Location::Fs { path: PathBuf::from("/tree/blobs") });
    let place = placed(&bucket(), &["id", "secret"]);
    assert_eq!(where_is(&place.location), "bucket blobs at http://127.0.0.1:9000/home/");
    let Location::S3(bucket) = place.location else { panic!("a bucket") };
    assert_eq!((bucket.access_key_id.reveal(), bucket.secret_access_key.reveal()), ("id", "secret"));
    assert!(bucket.path_style && bucket.region == "us-east-1");
}

#[test]
fn another_secret_is_another_place_and_no_text_shows_it() {
    let (one, other) = (placed(&bucket(), &["id", "secret"]), placed(&bucket(), &["id", "rotated"]));
    assert_ne!(one.digest, other.digest);
    assert_eq!(where_is(&one.location), where_is(&other.location));
    assert!(!format!("{other:?}").contains("rotated"));
}

#[test]
fn it_is_usable_once_it_was_tried_with_these_very_settings() {
    let place = Ok(placed(&bucket(), &["id", "secret"]));
    let proven = Health::Proven(place.as_ref().expect("a place").digest.clone());
    let other = Health::Proven(placed(&bucket(), &["id", "old"]).digest);
    assert!(plan(&view(&place, Some(&proven))).standing.settled());
    for health in [None, Some(&other), Some(&Health::Unproven)] {
        let standing = plan(&view(&place, health)).standing;
        assert_eq!((standing.reason, standing.settled(), standing.doomed), (Reason::Unproven, false, false));
    }
    let glance = View { assumed: true, ..view(&place, Some(&other)) };
    assert!(plan(&glance).standing.settled(), "a glance does not know the secret");
}

#[test]
fn a_refusal_is_final_and_a_failure_is_tried_again() {
    let place = Ok(placed(&folder(), &[]));
    let refused = Health::Refused("no such bucket".to_owned());
    let standing = plan(&view(&place, Some(&refused))).standing;
    assert_eq!((standing.reason, standing.doomed), (Reason::BackendRefused, true));
    let failing = Health::Failing { why: "connection refused".to_owned(), retry_at: Timestamp(0) };
    let standing = plan(&view(&place, Some(&failing))).standing;
    assert_eq!((standing.reason, standing.doomed), (Reason::BackendFailing, false));
}

#[test]
fn a_missing_secret_is_said_and_nothing_is_accepted() {
    let problem = Problem::error(Code::BadSecret, Span::file_start("a.yaml".into()), "the variable ID is not set");
    let place = Err(Box::new(problem));
    let intent = plan(&View { changed: true, ..view(&place, None) });
    assert_eq!((intent.steps.len(), intent.standing.reason), (0, Reason::BadInput));
    assert!(intent.problem.is_some());
}

#[test]
fn one_that_leaves_is_let_go_of_when_nothing_relies_on_it() {
    let place = Ok(placed(&folder(), &[]));
    let leaving = View { leaves: true, ..view(&place, None) };
    let holding = View { tally: Tally { objects: 2, bytes: 2_048, ..Tally::default() }, ..leaving.clone() };
    let intent = plan(&holding);
    assert_eq!((intent.steps.len(), intent.standing.reason), (0, Reason::StillNeeded));
    assert_eq!(intent.standing.message, "no longer declared; let go of when its 2 objects (2KiB) have been moved");
    assert!(plan(&View { in_use: true, ..leaving.clone() }).steps.is_empty(), "new blobs go there");
    let retained = View { tally: Tally { spares: 3, ..Tally::default() }, ..leaving.clone() };
    let step = plan(&retained).steps.remove(0);
    assert_eq!((step.action, step.detail.as_str()), (Action::Release, "3 objects that nobody needs stay there"));
    let delete = spec(serde_json::json!({ "fs": { "path": "x" }, "deletionPolicy": "Delete" }));
    assert!(plan(&View { spec: Some(&delete), ..retained.clone() }).steps.is_empty(), "they are removed first");
    assert_eq!(plan(&View { spec: Some(&delete), ..leaving }).steps.len(), 1);
}
