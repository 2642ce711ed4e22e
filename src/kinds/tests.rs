//! Schemas: they can all be made, are what is committed, and agree with a validator that is not ours.

use super::schema;
use crate::model::id::KindName;

#[test]
fn every_kind_has_a_checker() {
    assert_eq!(schema::schemas().kinds.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), KindName::ALL);
}
