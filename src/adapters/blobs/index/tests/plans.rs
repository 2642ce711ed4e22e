//! Every page is read from an index and none by scanning or sorting. How long that takes with a million objects is measured by
//! `scripts/bench-storage`.

use super::*;

/// What SQLite would do for a query.
fn plan(index: &SqliteIndex, sql: &str) -> String {
    let explained = format!("EXPLAIN QUERY PLAN {sql}");
    index
        .read(|on| {
            let mut statement = on.prepare(&explained).map_err(broken)?;
            let count = statement.parameter_count();
            let values = rusqlite::params_from_iter(vec![1i64; count]);
            let lines = statement.query_map(values, |line| line.get::<_, String>(3)).map_err(broken)?;
            Ok(lines.collect::<rusqlite::Result<Vec<_>>>().map_err(broken)?.join("; "))
        })
        .expect("a plan")
}

#[test]
fn every_page_comes_from_an_index() {
    let dir = tempfile::tempdir().expect("a folder");
    let index = filled(dir.path(), 1);
    for (sql, with) in [
        (look::FIND, "SEARCH b USING PRIMARY KEY (key=?)"),
        (look::ENTRIES, "SEARCH b USING PRIMARY KEY (key>?)"),
        (look::ROW, "(name=?)"),
        (look::KEYS_OF, "blob_of_object (object=?)"),
        (look::AT, "object_at (place=? AND name>?)"),
        (look::TROUBLED, "object_troubled (name>?)"),
        (look::NEVER_VERIFIED, "object_verified (place=? AND verified=?)"),
        (look::STALE, "object_verified (place=? AND verified<?)"),
        (spares::SINCE_BEFORE, "spare_since (place=? AND why=? AND since<?)"),
        (moves::ANY_ELSEWHERE, "object_verified (place>?)"),
    ] {
        let plan = plan(&index, sql);
        assert!(plan.contains(with), "{sql}\n{plan}");
        assert!(!plan.contains("SCAN o") && !plan.contains("TEMP B-TREE"), "{sql}\n{plan}");
    }
}
