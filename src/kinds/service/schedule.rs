//! `schedule`: when a service runs by the clock. Cron expressions and time zones are libraries' work (`croner`, `jiff`); what is
//! asked of them is here. Pure.
//!
//! A time that does not exist (the clock goes forward) becomes the next one that does; a fixed time that comes twice (the clock
//! goes back) counts once. Expressions with `*` or steps in their minute or hour count real time, as in Vixie cron.

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::TimeZone;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::spec::{RestartPolicy, ServiceSpec};
use crate::document::Document;
use crate::document::near::nearest;
use crate::model::problem::{Code, Problem};
use crate::model::time::Timestamp;

/// The zone of a schedule that names none: the same on every machine.
const DEFAULT_ZONE: &str = "UTC";
/// The fields of an expression, by position.
const FIELDS: [&str; 5] = ["minute", "hour", "day of month", "month", "day of week"];
/// From here it is looked whether an expression ever comes true: any moment will do.
const SOME_MOMENT: Timestamp = Timestamp(1_767_225_600_000);

/// Runs the program by the clock. It runs once for each time of the expression, and is not started otherwise: not when it is first
/// declared, and not when its settings change. `trueup restart NAME` runs it now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ScheduleSpec {
    /// A cron expression with five fields (minute, hour, day of month, month, day of week), such as `0 3 * * *` for every day at
    /// three, or one of `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`.
    #[schemars(length(min = 1, max = 200))]
    pub cron: String,
    /// The zone of the expression, such as `Europe/Berlin`. A time that is left out when clocks go forward is taken at the
    /// next one that exists; a time that comes twice when clocks go back runs once. Default: UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// What happens when the last run still runs.
    #[serde(default)]
    pub overlap: Overlap,
    /// What happens to a time that passed while nobody looked: the machine was off, or no daemon ran.
    #[serde(default)]
    pub missed: Missed,
}

/// What happens when the last run still runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Overlap {
    /// The new run is left out.
    #[default]
    Forbid,
    /// The old run is stopped, and the new one starts.
    Replace,
}

/// What happens to a time that passed while nobody looked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Missed {
    /// It runs once, however many times passed.
    #[default]
    Run,
    /// It waits for the next time.
    Skip,
}

/// A schedule that was read: expression and zone.
#[derive(Clone, Debug)]
pub struct Timetable {
    cron: Cron,
    zone: TimeZone,
}

impl ScheduleSpec {
    fn zone_name(&self) -> &str {
        self.time_zone.as_deref().unwrap_or(DEFAULT_ZONE)
    }

    /// What makes it another schedule: the times it names.
    pub fn key(&self) -> String {
        format!("{} {}", self.cron, self.zone_name())
    }

    /// Reads it. `None` for one that the check has refused, or whose zone this machine has forgotten since.
    pub fn timetable(&self) -> Option<Timetable> {
        Some(Timetable { cron: read(&self.cron).ok()?, zone: TimeZone::get(self.zone_name()).ok()? })
    }
}

impl Timetable {
    fn zoned(&self, at: Timestamp) -> Option<jiff::Zoned> {
        // Whole seconds: the expression knows nothing smaller.
        let whole = jiff::Timestamp::from_second(at.0.div_euclid(1_000)).ok()?;
        Some(whole.to_zoned(self.zone.clone()))
    }

    /// The last time that has come by then.
    pub fn latest(&self, now: Timestamp) -> Option<Timestamp> {
        let found = self.cron.find_previous_occurrence(&self.zoned(now)?, true).ok()?;
        Some(Timestamp(found.timestamp().as_millisecond()))
    }

    /// The first time after that.
    pub fn next(&self, now: Timestamp) -> Option<Timestamp> {
        let found = self.cron.find_next_occurrence(&self.zoned(now)?, false).ok()?;
        Some(Timestamp(found.timestamp().as_millisecond()))
    }

    /// A time of it as people read it: in its own zone.
    pub fn show(&self, at: Timestamp) -> String {
        let name = self.zone.iana_name().unwrap_or(DEFAULT_ZONE);
        match self.zoned(at) {
            Some(zoned) => format!("{} {name}", zoned.strftime("%Y-%m-%d %H:%M")),
            None => at.to_string(),
        }
    }
}

fn read(expression: &str) -> Result<Cron, String> {
    let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
    parser.parse(expression).map_err(|error| {
        use croner::errors::CronError as E;
        match error {
            E::InvalidPattern(why) | E::IllegalCharacters(why) | E::ComponentError(why) => why,
            other => other.to_string(),
        }
    })
}

/// The one field of the expression that cannot be read by itself, as name and text.
fn bad_field(expression: &str) -> Option<(&'static str, String)> {
    let words: Vec<&str> = expression.split_whitespace().collect();
    if words.len() != FIELDS.len() {
        return None;
    }
    (0..FIELDS.len()).find_map(|at| {
        let alone: Vec<&str> = (0..FIELDS.len()).map(|other| if other == at { words[at] } else { "*" }).collect();
        read(&alone.join(" ")).is_err().then(|| (FIELDS[at], words[at].to_owned()))
    })
}

/// A scheduled program that states no policy ends when it ends.
pub(crate) fn defaults(document: &Document, spec: &mut ServiceSpec) {
    if spec.schedule.is_some() && document.spec().pointer("/restart/policy").is_none() {
        spec.restart.policy = RestartPolicy::Never;
    }
}

/// What no schema can tell.
pub(super) fn check(document: &Document, spec: &ServiceSpec, problems: &mut Vec<Problem>) {
    let Some(schedule) = &spec.schedule else { return };
    if spec.restart.policy == RestartPolicy::Always {
        let at = document.value_at("/spec/restart/policy");
        let message = "a service with `schedule` runs to its end, so it cannot be restarted `always`";
        let problem = Problem::error(Code::Conflict, at, message)
            .label("restarts after every end")
            .also(document.key_at("/spec/schedule"), "runs by the clock")
            .hint("write `policy: never`, or `on-failure` to try a failed run again; the default here is `never`");
        problems.push(problem);
    }
    for (field, _) in [("reload", spec.reload.is_some()), ("rollback", spec.rollback.is_some())].iter().filter(|f| f.1)
    {
        let at = document.key_at(&format!("/spec/{field}"));
        let message =
            format!("a service with `schedule` is started anew for each of its times, so it has no `{field}`");
        let problem = Problem::error(Code::Conflict, at, message)
            .label("is for what runs all the time")
            .also(document.key_at("/spec/schedule"), "runs by the clock")
            .hint("remove one of them; the next run has the new settings and files by itself");
        problems.push(problem);
    }
    let at = || document.value_at("/spec/schedule/cron");
    match read(&schedule.cron) {
        Err(why) => {
            let message = format!("`spec.schedule.cron` cannot be `{}`: {why}", schedule.cron);
            let mut problem = Problem::error(Code::OutOfRange, at(), message);
            if let Some((field, text)) = bad_field(&schedule.cron) {
                problem = problem.label(format!("the {field} `{text}`"));
            }
            let hint = "five fields: minute, hour, day of month, month, day of week; `0 3 * * *` is every day at three";
            problems.push(problem.hint(hint));
        }
        Ok(cron) => {
            let table = Timetable { cron, zone: TimeZone::UTC };
            if table.next(SOME_MOMENT).is_none() {
                let message = format!("`spec.schedule.cron` never comes: there is no day like `{}`", schedule.cron);
                problems.push(Problem::error(Code::OutOfRange, at(), message).hint("look at its day and month"));
            }
        }
    }
    let zone = schedule.zone_name();
    if TimeZone::get(zone).is_err() {
        let names: Vec<String> = jiff::tz::db().available().map(|name| name.to_string()).collect();
        let message = format!("`spec.schedule.timeZone`: there is no zone `{zone}`");
        let problem = Problem::error(Code::OutOfRange, document.value_at("/spec/schedule/timeZone"), message);
        problems.push(match nearest(zone, names.iter().map(String::as_str)) {
            Some(near) => problem.hint(format!("did you mean `{near}`?")),
            None => problem.hint("a zone is written as in Europe/Berlin, America/New_York, or UTC"),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(cron: &str, zone: &str) -> Timetable {
        let spec = ScheduleSpec { cron: cron.into(), time_zone: Some(zone.into()), ..ScheduleSpec::default() };
        spec.timetable().expect(cron)
    }

    fn at(text: &str) -> Timestamp {
        Timestamp(text.parse::<jiff::Timestamp>().expect(text).as_millisecond())
    }

    /// All times of a table in a span.
    fn times(table: &Timetable, from: &str, to: &str) -> Vec<String> {
        let (mut now, end) = (at(from), at(to));
        let mut all = Vec::new();
        while let Some(next) = table.next(now).filter(|next| *next <= end) {
            all.push(next.to_string());
            now = next;
        }
        all
    }

    #[test]
    fn a_time_that_does_not_exist_runs_at_the_next_one_that_does() {
        // In Berlin the clock goes from 02:00 to 03:00 on 2026-03-29 (01:00 UTC).
        let night = table("30 2 * * *", "Europe/Berlin");
        let all = times(&night, "2026-03-28T00:00:00Z", "2026-03-30T12:00:00Z");
        assert_eq!(all, ["2026-03-28T01:30:00.000Z", "2026-03-29T01:00:00.000Z", "2026-03-30T00:30:00.000Z"]);
        assert_eq!(night.latest(at("2026-03-29T05:00:00Z")), Some(at("2026-03-29T01:00:00Z")));
        assert_eq!(night.latest(at("2026-03-29T01:00:00Z")), Some(at("2026-03-29T01:00:00Z")));
        assert_eq!(night.latest(at("2026-03-29T00:59:59Z")), Some(at("2026-03-28T01:30:00Z")));
    }

    #[test]
    fn a_time_that_comes_twice_runs_once() {
        // In Berlin the clock goes from 03:00 back to 02:00 on 2026-10-25 (01:00 UTC).
        let night = table("30 2 * * *", "Europe/Berlin");
        let all = times(&night, "2026-10-24T12:00:00Z", "2026-10-26T12:00:00Z");
        assert_eq!(all, ["2026-10-25T00:30:00.000Z", "2026-10-26T01:30:00.000Z"]);
        for later in ["2026-10-25T01:29:00Z", "2026-10-25T01:30:00Z", "2026-10-25T01:31:00Z", "2026-10-25T09:00:00Z"] {
            assert_eq!(night.latest(at(later)), Some(at("2026-10-25T00:30:00Z")), "{later}");
        }
        // Real time goes on: what runs every hour does so.
        assert_eq!(
            times(&table("0 * * * *", "Europe/Berlin"), "2026-10-24T23:30:00Z", "2026-10-25T02:30:00Z").len(),
            3
        );
    }

    #[test]
    fn nicknames_are_read_and_nonsense_is_not() {
        for good in ["@daily", "@hourly", "@weekly", "@monthly", "@yearly", "*/5 * * * MON-FRI", "0 0 29 2 *"] {
            assert!(read(good).is_ok(), "{good}");
        }
        for bad in ["", "* * * *", "* * * * * *", "61 * * * *", "0 24 * * *", "x * * * *", "@never", "0 0 0 * *"] {
            assert!(read(bad).is_err(), "{bad}");
        }
        assert_eq!(bad_field("0 25 * * *"), Some(("hour", "25".to_owned())));
    }

    #[test]
    fn what_never_comes_is_known_soon() {
        assert_eq!(table("0 0 30 2 *", "UTC").next(SOME_MOMENT), None);
        assert_eq!(table("0 0 31 4,6 *", "UTC").next(SOME_MOMENT), None);
    }

    proptest::proptest! {
        #[test]
        fn the_latest_time_is_the_one_before_the_next(
            cron in proptest::sample::select(vec!["30 2 * * *", "0 3 * * *", "15 1-4 * * *", "@hourly", "*/20 * * * *", "0 2 * * SUN"]),
            zone in proptest::sample::select(vec!["Europe/Berlin", "UTC", "America/New_York", "Australia/Lord_Howe"]),
            second in 1_740_000_000i64..1_800_000_000,
        ) {
            let table = table(cron, zone);
            let now = Timestamp(second * 1_000);
            let (latest, next) = (table.latest(now).expect("one"), table.next(now).expect("one"));
            proptest::prop_assert!(latest <= now && now < next);
            proptest::prop_assert_eq!(table.latest(next), Some(next));
            proptest::prop_assert_eq!(table.next(latest), Some(next), "from {} at {}", latest, now);
        }
    }
}
