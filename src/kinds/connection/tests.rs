//! Every decision about a Connection, one by one, by the plan alone.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::inputs::{self, Ends, Inputs, SinkEnd, Unusable};
use super::plan::{Action, AtSink, Intent, View, plan};
use super::record::{Lent, Place, Prepared, Record, Wired};
use super::spec::ConnectionSpec;
use crate::kinds::trigger::{self, Address, Seen, Vault};
use crate::model::condition::Reason;
use crate::model::digest::Digest;
use crate::model::event::Cause;
use crate::model::id::Name;
use crate::model::time::Timestamp;
use crate::ports::bearers::{Holdings, LIFE_SECONDS, Wanted};
use crate::ports::deliveries::Tally;
use crate::ports::hub;
use crate::ports::tokens::{TokenRow, Via};

const NOW: Timestamp = Timestamp(1_000_000_000_000);
const DAY: i64 = 86_400_000;

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

fn at(vault: &str) -> Address {
    Address { service: name("vault"), vault: vault.to_owned() }
}

fn spec(change: Value) -> ConnectionSpec {
    let mut spec = json!({
        "source": { "service": "vault", "vault": "default", "event": "note.created", "filter": { "tags": ["in"] } },
        "sink": { "service": "mailbox", "action": "message.deliver" },
    });
    merge(&mut spec, change);
    serde_json::from_value(spec).expect("a spec")
}

fn merge(into: &mut Value, change: Value) {
    match (into, change) {
        (Value::Object(into), Value::Object(change)) => {
            for (key, value) in change {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, change) => *into = change,
    }
}

fn channel(name: &str) -> Value {
    json!({ "sink": { "params": { "channel": name }, "prepare": {
        "scope": "mailbox:admin", "put": { "path": "/api/channels", "body": { "name": "{params.channel}", "token": "{token}" } },
        "remove": "/api/channels/{params.channel}", "token": "vault:{vault}:write",
    } } })
}

fn credential() -> ConnectionSpec {
    let wish =
        json!({ "credential": { "service": "scribe", "key": "notes", "vaultService": "vault", "vault": "default" } });
    serde_json::from_value(wish).expect("a spec")
}

/// A reason, and what leads to it.
type Turn<T> = (&'static str, fn(&mut T));

/// Everything that a view borrows.
struct Case {
    hub: Name,
    base: String,
    mount: String,
    scope: String,
    inputs: Option<Result<Inputs, Unusable>>,
    record: Record,
    owned: bool,
    changed: bool,
    suspended: bool,
    renew: bool,
    gone: bool,
    heir: Option<Name>,
    vaults: BTreeMap<Address, Vault>,
    holdings: Holdings,
    at_sink: AtSink,
    tally: Option<Tally>,
    made: u32,
}

impl Case {
    /// Nothing is there but a vault that answers.
    fn new(change: Value) -> Self {
        let mut case = Self {
            hub: name("home"),
            base: "http://127.0.0.1:1939".to_owned(),
            mount: "/mailbox".to_owned(),
            scope: "mailbox:send".to_owned(),
            inputs: None,
            record: Record::default(),
            owned: false,
            changed: true,
            suspended: false,
            renew: false,
            gone: false,
            heir: None,
            vaults: BTreeMap::from([(at("default"), Vault::Present(BTreeMap::new()))]),
            holdings: Holdings { kid: Some("k1".to_owned()), issuer: "http://a".to_owned(), live: BTreeMap::new() },
            at_sink: AtSink::Unknown,
            tally: None,
            made: 0,
        };
        case.say(change);
        case
    }

    fn say(&mut self, change: Value) {
        self.resolve(&spec(change));
    }

    fn resolve(&mut self, spec: &ConnectionSpec) {
        let sink = SinkEnd {
            port: Some(2003),
            space: if spec.credential.is_some() { "scribe" } else { "mailbox" },
            mount: Some((&self.mount, false)),
            action: Some(("/api/inbound", &self.scope)),
            credential: Some(("vault:{vault}:read", "/api/credential")),
        };
        let ends = Ends { hub: Some(&self.hub), base: Some(&self.base), vault_port: Some(2001), sink: Some(sink) };
        self.inputs = Some(inputs::resolve(&name("inbox"), spec, &ends));
    }

    /// Wired, and everything as it should be.
    fn wired(change: Value) -> Self {
        let mut case = Self::new(change);
        case.stand();
        case
    }

    /// What is wished now is what is there.
    fn stand(&mut self) {
        let inputs = self.inputs().clone();
        let wire = inputs.wire.expect("a trigger");
        let jti = self.token(&wire.bearer);
        let place = Place { at: inputs.at.clone(), trigger: wire.trigger.name.clone() };
        let seen = Seen {
            events: wire.trigger.events.clone(),
            when: Value::Object(wire.trigger.when.clone()),
            webhook: wire.trigger.webhook.clone(),
            send: Some("json".to_owned()),
            has_bearer: true,
            updated_at: "t1".to_owned(),
        };
        self.triggers(|all| drop(all.insert(wire.trigger.name.clone(), seen)));
        self.record.triggers.insert(place.clone());
        let (what, issuer) = (wire.trigger.digest(), self.holdings.issuer.clone());
        self.record.wired = Some(Wired { place, what, jti, issuer, updated_at: "t1".to_owned() });
        (self.owned, self.changed) = (true, false);
    }

    fn inputs(&self) -> &Inputs {
        self.inputs.as_ref().expect("declared").as_ref().expect("usable")
    }

    fn token(&mut self, wanted: &Wanted) -> String {
        self.made += 1;
        let jti = format!("j{}", self.made);
        let row = TokenRow {
            jti: jti.clone(),
            subject: "connection".to_owned(),
            client: wanted.client.clone(),
            audience: wanted.audience.clone(),
            scopes: vec![wanted.scope.clone()],
            vault_scope: wanted.vault_scope.clone(),
            permissions: wanted.permissions.as_ref().map(|map| Value::from(map.clone()).to_string()),
            via: wanted.via,
            kid: "k1".to_owned(),
            created: Timestamp(NOW.0 + i64::from(self.made)),
            expires: Timestamp(NOW.0 + LIFE_SECONDS * 1_000),
            revoked: None,
        };
        self.holdings.live.insert(jti.clone(), row);
        jti
    }

    fn triggers(&mut self, change: impl FnOnce(&mut BTreeMap<String, Seen>)) {
        let at = self.inputs().at.clone();
        if let Vault::Present(all) = self.vaults.entry(at).or_insert(Vault::Present(BTreeMap::new())) {
            change(all);
        }
    }

    fn ours(&mut self, change: impl FnOnce(&mut Seen)) {
        let trigger = self.inputs().wire.as_ref().expect("a trigger").trigger.name.clone();
        self.triggers(|all| change(all.get_mut(&trigger).expect("it is there")));
    }

    fn row(&mut self, jti: &str) -> &mut TokenRow {
        self.holdings.live.get_mut(jti).expect("it lives")
    }

    fn answers(&mut self, vault: &str, is: Vault) {
        self.vaults.insert(at(vault), is);
    }

    fn leave(&mut self) {
        self.inputs = None;
    }

    fn plan(&self) -> Intent {
        let ports = [("vault", 2001), ("mailbox", 2003), ("scribe", 2004), ("old", 2005)];
        let ports: BTreeMap<Name, u16> = ports.iter().map(|(text, port)| (name(text), *port)).collect();
        let services = if self.gone { BTreeSet::new() } else { ports.keys().cloned().collect() };
        // Whoever wants everything that this one has.
        let heirs = |heir: &Name| self.record.triggers.iter().map(|place| (place.clone(), heir.clone())).collect();
        let wished = self.heir.as_ref().map(heirs).unwrap_or_default();
        let is_own = |row: &&TokenRow| inputs::connection_of(&row.client).is_some_and(|of| of == name("inbox"));
        let own: Vec<String> = self.holdings.live.values().filter(is_own).map(|row| row.jti.clone()).collect();
        plan(&View {
            name: &name("inbox"),
            inputs: self.inputs.as_ref(),
            record: &self.record,
            owned: self.owned,
            changed: self.changed,
            down: false,
            suspended: self.suspended.then_some("suspended"),
            vaults: &self.vaults,
            ports: &ports,
            services: &services,
            wished: &wished,
            at_sink: &self.at_sink,
            holdings: Ok(&self.holdings),
            own: &own,
            tally: self.tally.as_ref(),
            stuck: None,
            stays_away: false,
            hub: &hub::Standing::Idle,
            renew: self.renew,
            now: NOW,
        })
    }

    /// The steps, as words with their reasons.
    fn steps(&self) -> Vec<String> {
        self.plan().steps.iter().map(|step| format!("{} {}", step.action.word(), step.reason)).collect()
    }
}

/// The token that the first step goes on with, if any.
fn reused(intent: &Intent) -> Option<String> {
    match &intent.steps.first()?.action {
        Action::Wire(wiring) => wiring.reuse.clone(),
        Action::Prepare(preparing) => preparing.reuse.clone(),
        Action::Lend(lending) => lending.reuse.clone(),
        _ => None,
    }
}

#[test]
fn what_stands_needs_nothing() {
    let intent = Case::wired(json!({})).plan();
    assert!(intent.steps.is_empty() && intent.standing.ready, "{intent:?}");
    assert_eq!(intent.standing.reason, Reason::Wired);
}

#[test]
fn a_new_one_is_wired_with_a_new_token() {
    let case = Case::new(json!({}));
    assert_eq!((case.steps(), reused(&case.plan())), (vec!["wire Absent".to_owned()], None));
}

#[test]
fn what_its_vault_has_not_as_it_was_written_is_put_right() {
    let cases: [Turn<Seen>; 5] = [
        ("TriggerEdited", |seen| seen.webhook = "http://127.0.0.1:1/x".to_owned()),
        ("TriggerEdited", |seen| seen.events.push("updated".to_owned())),
        ("TriggerEdited", |seen| seen.when = json!({})),
        ("TriggerEdited", |seen| seen.has_bearer = false),
        ("TriggerOverwritten", |seen| seen.updated_at = "t0".to_owned()),
    ];
    for (reason, change) in cases {
        let mut case = Case::wired(json!({}));
        case.ours(change);
        let intent = case.plan();
        assert_eq!(case.steps(), [format!("wire {reason}")]);
        assert_eq!((intent.steps[0].cause, reused(&intent)), (Cause::Drift, Some("j1".to_owned())), "{reason}");
    }
    let mut case = Case::wired(json!({}));
    case.triggers(BTreeMap::clear);
    assert_eq!(case.steps(), ["wire TriggerMissing"]);
}

#[test]
fn what_a_vault_may_leave_out_is_no_edit() {
    let mut case = Case::wired(json!({}));
    case.ours(|seen| {
        seen.when = json!({ "tags": ["in"], "has_metadata": [] });
        seen.send = None;
    });
    assert!(case.steps().is_empty());
}

#[test]
fn a_token_that_does_not_count_or_will_not_soon_is_replaced() {
    let cases: [Turn<Case>; 5] = [
        ("BearerRevoked", |case| case.holdings.live.clear()),
        ("BearerExpiring", |case| case.row("j1").expires = Timestamp(NOW.0 + 29 * DAY)),
        ("KeyRotated", |case| case.holdings.kid = Some("k2".to_owned())),
        ("Changed", |case| case.row("j1").scopes = vec!["inbox:other".to_owned()]),
        ("Requested", |case| case.renew = true),
    ];
    for (reason, change) in cases {
        let mut case = Case::wired(json!({}));
        change(&mut case);
        assert_eq!((case.steps(), reused(&case.plan())), (vec![format!("wire {reason}")], None));
    }
    let mut case = Case::wired(json!({}));
    case.row("j1").expires = Timestamp(NOW.0 + 31 * DAY);
    assert!(case.steps().is_empty(), "a month is left");
}

#[test]
fn another_origin_sends_the_token_anew() {
    let mut case = Case::wired(json!({}));
    case.holdings.issuer = "http://b".to_owned();
    let intent = case.plan();
    assert_eq!((case.steps(), reused(&intent)), (vec!["wire Changed".to_owned()], Some("j1".to_owned())));
    assert!(matches!(&intent.steps[0].action, Action::Wire(wiring) if wiring.issuer == "http://b"));
}

#[test]
fn another_mount_endpoint_or_scope_is_followed() {
    let mut case = Case::wired(json!({ "delivery": "direct" }));
    case.mount = "/post".to_owned();
    case.say(json!({ "delivery": "direct" }));
    assert_eq!(case.steps(), ["wire Changed"]);
    let mut case = Case::wired(json!({ "delivery": "direct" }));
    case.scope = "mailbox:put".to_owned();
    case.say(json!({ "delivery": "direct" }));
    assert_eq!((case.steps(), reused(&case.plan())), (vec!["wire Changed".to_owned()], None));
    // What is durable goes to the inbox, wherever the hub brings it from there.
    let mut case = Case::wired(json!({}));
    (case.mount, case.scope) = ("/post".to_owned(), "mailbox:put".to_owned());
    case.say(json!({}));
    assert!(case.steps().is_empty());
}

#[test]
fn an_attempt_that_was_not_heard_of_is_gone_on_with() {
    // The token of an attempt before a crash is used, and nothing is revoked before the trigger stands.
    let mut case = Case::new(json!({}));
    let bearer = case.inputs().wire.as_ref().expect("a trigger").bearer.clone();
    case.token(&bearer);
    assert_eq!((case.steps(), reused(&case.plan())), (vec!["wire Absent".to_owned()], Some("j1".to_owned())));
    let mut case = Case::wired(json!({}));
    case.row("j1").expires = Timestamp(NOW.0 + DAY);
    case.token(&bearer);
    assert_eq!((case.steps(), reused(&case.plan())), (vec!["wire BearerExpiring".to_owned()], Some("j2".to_owned())));
    // A renewal that failed does not make another token each time.
    let mut case = Case::wired(json!({}));
    case.renew = true;
    case.token(&bearer);
    assert_eq!(reused(&case.plan()), Some("j2".to_owned()));
}

#[test]
fn what_a_newer_token_replaced_is_revoked_when_that_one_stands() {
    let mut case = Case::wired(json!({}));
    let bearer = case.inputs().wire.as_ref().expect("a trigger").bearer.clone();
    case.token(&bearer);
    assert_eq!(case.steps(), ["revoke Replaced"]);
    assert!(matches!(&case.plan().steps[0].action, Action::Revoke { jtis } if jtis == &["j2"]));
    case.triggers(BTreeMap::clear);
    assert_eq!(case.steps(), ["wire TriggerMissing"], "not while it does not stand");
}

#[test]
fn attempts_that_fail_do_not_pile_up_tokens() {
    let mut case = Case::wired(json!({}));
    let other = Wanted { scope: "mailbox:send".to_owned(), ..case.inputs().wire.clone().expect("a trigger").bearer };
    (0..3).for_each(|_| drop(case.token(&other)));
    case.row("j1").expires = Timestamp(NOW.0 + DAY);
    assert_eq!(case.steps(), ["wire BearerExpiring", "revoke Replaced"]);
    // The newest may be the one that the trigger sends.
    assert!(matches!(&case.plan().steps[1].action, Action::Revoke { jtis } if jtis == &["j3", "j2"]));
}

#[test]
fn what_one_receiver_has_got_is_never_given_to_another() {
    let mut case = Case::wired(json!({}));
    case.row("j1").client = "connection/inbox/vault/vault/elsewhere".to_owned();
    assert_eq!(case.steps(), ["wire Changed"]);
    assert!(matches!(&case.plan().steps[0].action, Action::Wire(wiring) if wiring.reuse.is_none()));
}

#[test]
fn tokens_of_others_are_none_of_its_business() {
    let mut case = Case::wired(json!({}));
    let bearer = case.inputs().wire.clone().expect("a trigger").bearer;
    case.token(&Wanted { client: "connection/other".to_owned(), ..bearer });
    assert!(case.steps().is_empty());
    case.leave();
    let revoked = case.plan().steps.into_iter().filter_map(|step| match step.action {
        Action::Revoke { jtis } => Some(jtis),
        _ => None,
    });
    assert_eq!(revoked.collect::<Vec<Vec<String>>>(), [["j1"]]);
}

#[test]
fn what_is_there_under_our_name_is_adopted_and_written() {
    let mut case = Case::wired(json!({}));
    case.record = Record::default();
    assert_eq!(case.steps(), ["wire Adopted"]);
}

#[test]
fn a_trigger_of_others_is_left_alone() {
    let mut case = Case::wired(json!({}));
    case.triggers(|all| {
        let foreign = all.values().next().expect("ours").clone();
        all.insert("conn_theirs".to_owned(), foreign);
    });
    assert!(case.steps().is_empty());
    let hub = name("home");
    let ours = trigger::name(&hub, "default", &name("inbox"));
    assert_eq!(trigger::owner(&hub, "default", &ours), Some(name("inbox")));
    for (hub, vault, trigger) in [
        ("other", "default", ours.as_str()),
        ("home", "lab", &ours),
        ("home", "default", "conn_inbox"),
        ("home", "default", "conn_inbox_tu00000000"),
    ] {
        assert_eq!(trigger::owner(&name(hub), vault, trigger), None, "{hub} {vault} {trigger}");
    }
}

#[test]
fn a_vault_that_does_not_answer_is_waited_for() {
    let mut case = Case::new(json!({}));
    case.answers("default", Vault::Unknown("it does not run".to_owned()));
    let intent = case.plan();
    assert_eq!((case.steps(), intent.standing.reason), (vec!["wire Absent".to_owned()], Reason::DependencyNotReady));
    assert!(intent.gate.is_some());
    // What stood is taken to stand still.
    let mut case = Case::wired(json!({}));
    case.answers("default", Vault::Unknown("it does not run".to_owned()));
    assert!(case.steps().is_empty());
}

#[test]
fn a_vault_that_is_not_there_is_said_and_waited_for() {
    for mut case in [Case::new(json!({})), Case::wired(json!({}))] {
        case.answers("default", Vault::Absent);
        let intent = case.plan();
        assert_eq!((intent.standing.reason, intent.standing.ready), (Reason::VaultMissing, false));
        assert!(intent.gate.is_some() && intent.steps.len() == 1);
    }
}

#[test]
fn another_vault_gets_it_first_and_then_the_old_one_loses_it() {
    let mut case = Case::wired(json!({}));
    case.answers("lab", Vault::Present(BTreeMap::new()));
    case.say(json!({ "source": { "vault": "lab" } }));
    case.changed = true;
    let intent = case.plan();
    assert_eq!(case.steps(), ["wire Changed"]);
    let claim = intent.steps[0].action.claim().expect("a claim");
    assert_eq!(
        (claim.triggers.len(), claim.wired.is_some()),
        (2, true),
        "both places are noted before anything is done"
    );
    let (record, holdings) = (case.record.clone(), case.holdings.clone());
    case.stand();
    case.record.triggers.extend(record.triggers);
    case.holdings.live.extend(holdings.live);
    assert_eq!(case.steps(), ["unwire Changed", "revoke Replaced"]);
}

#[test]
fn another_way_of_delivery_has_another_token() {
    let mut case = Case::wired(json!({}));
    case.say(json!({ "delivery": "direct" }));
    let intent = case.plan();
    let Action::Wire(wiring) = &intent.steps[0].action else { panic!("{intent:?}") };
    assert_eq!(wiring.wire.trigger.webhook, "http://127.0.0.1:1939/mailbox/api/inbound");
    assert_eq!((wiring.wire.bearer.scope.as_str(), wiring.wire.bearer.audience.as_str()), ("mailbox:send", "mailbox"));
    assert_eq!(wiring.reuse, None);
    let case = Case::new(json!({}));
    let wire = case.inputs().wire.as_ref().expect("a trigger");
    assert_eq!(wire.trigger.webhook, "http://127.0.0.1:1939/inbox/inbox");
    assert_eq!((wire.bearer.scope.as_str(), wire.bearer.audience.as_str()), ("inbox:inbox", "inbox"));
    assert_eq!(wire.bearer.via, Via::ConnectionProvision);
    // Events of the time before are still brought to their sink.
    assert!(Case::new(json!({ "delivery": "direct" })).inputs().wiring.is_some());
}

#[test]
fn suspended_a_durable_one_keeps_its_trigger_and_a_direct_one_does_not() {
    let mut case = Case::wired(json!({}));
    case.suspended = true;
    assert_eq!((case.steps(), case.plan().standing.reason), (vec![], Reason::Suspended));
    let mut case = Case::wired(json!({ "delivery": "direct" }));
    case.suspended = true;
    assert_eq!(case.steps(), ["unwire Changed", "revoke Replaced"]);
}

#[test]
fn it_goes_in_order_and_the_ledger_last() {
    let mut case = Case::wired(json!({}));
    case.leave();
    assert_eq!(case.steps(), ["unwire NotDeclared", "revoke NotDeclared"]);
    case.record = Record::default();
    assert_eq!(case.steps(), ["revoke NotDeclared"]);
    case.holdings.live.clear();
    assert_eq!(case.steps(), ["release NotDeclared"]);
}

#[test]
fn when_it_goes_and_its_vault_does_not_answer_its_tokens_go_and_it_waits() {
    let mut case = Case::wired(json!({}));
    case.leave();
    case.answers("default", Vault::Unknown("it does not run".to_owned()));
    assert_eq!(case.steps(), ["revoke NotDeclared"]);
    case.holdings.live.clear();
    assert!(case.steps().is_empty() && !case.plan().standing.settled(), "it is not forgotten");
    // Nobody will ever answer.
    case.gone = true;
    let intent = case.plan();
    assert!(
        matches!(&intent.steps[..], [step] if matches!(&step.action, Action::Unwire(unwiring) if unwiring.port.is_none()))
    );
}

#[test]
fn a_trigger_that_another_connection_goes_on_with_is_handed_over() {
    let mut case = Case::wired(json!({}));
    let trigger = case.inputs().wire.as_ref().expect("a trigger").trigger.name.clone();
    let seen = case.vaults[&at("default")].clone();
    case.leave();
    case.heir = Some(name("post"));
    assert!(case.steps().is_empty(), "the heir writes it first");
    case.answers("default", Vault::Unknown("it does not run".to_owned()));
    assert!(case.steps().is_empty(), "nor is anything revoked while that cannot be seen");
    let Vault::Present(mut all) = seen else { panic!("it answered") };
    all.get_mut(&trigger).expect("it is there").updated_at = "t2".to_owned();
    case.answers("default", Vault::Present(all));
    assert_eq!(case.steps(), ["unwire NotDeclared", "revoke NotDeclared"]);
    let intent = case.plan();
    assert!(
        matches!(&intent.steps[0].action, Action::Unwire(unwiring) if unwiring.port.is_none()),
        "it is not removed"
    );
}

#[test]
fn its_sink_is_told_before_the_trigger_is_written() {
    let mut case = Case::new(channel("main"));
    assert_eq!(case.steps(), ["prepare Absent"]);
    let prepare = case.inputs().prepare.clone().expect("something to tell");
    assert_eq!((prepare.put.as_str(), prepare.remove.as_deref()), ("/api/channels", Some("/api/channels/main")));
    tell(&mut case);
    assert_eq!(case.steps(), ["wire Absent"]);
}

/// The sink has been told what is wished now.
fn tell(case: &mut Case) {
    let prepare = case.inputs().prepare.clone().expect("something to tell");
    let jti = case.token(&prepare.token.expect("with a token"));
    case.record.prepared = Some(Prepared {
        service: prepare.service,
        what: prepare.what,
        jti: Some(jti),
        issuer: case.holdings.issuer.clone(),
        remove: prepare.remove,
        scope: prepare.scope,
        done: true,
    });
}

#[test]
fn a_sink_that_forgot_is_told_again() {
    let mut case = Case::wired(channel("main"));
    tell(&mut case);
    assert!(case.steps().is_empty());
    case.at_sink = AtSink::Missing;
    assert_eq!((case.steps(), reused(&case.plan())), (vec!["prepare SinkForgot".to_owned()], Some("j2".to_owned())));
    case.at_sink = AtSink::Unknown;
    case.holdings.live.remove("j2");
    assert_eq!(case.steps(), ["prepare BearerRevoked"]);
}

#[test]
fn what_a_sink_was_told_before_is_taken_back_when_the_new_one_stands() {
    let mut case = Case::wired(channel("main"));
    tell(&mut case);
    let old = case.record.prepared.clone().expect("it was told");
    case.say(channel("other"));
    let intent = case.plan();
    assert_eq!(case.steps(), ["prepare Absent"]);
    assert_eq!(intent.steps[0].action.claim().expect("a claim").obsolete, std::slice::from_ref(&old));
    tell(&mut case);
    case.record.obsolete = vec![old];
    assert_eq!(case.steps(), ["revoke Replaced", "unprepare Changed"]);
    case.leave();
    let goes = ["unwire NotDeclared", "revoke NotDeclared", "unprepare NotDeclared", "unprepare NotDeclared"];
    assert_eq!(case.steps(), goes, "tokens before a sink that may not answer");
}

/// The module has what is wished now.
fn hand(case: &mut Case) {
    let (lend, at) = (case.inputs().lend.clone().expect("something to lend"), case.inputs().at.clone());
    let jti = case.token(&lend.token);
    case.record.lent = Some(Lent {
        service: lend.service,
        at,
        what: lend.what,
        jti: Some(jti),
        issuer: case.holdings.issuer.clone(),
        key: lend.key,
        scope: lend.token.scope,
        tags: lend.tags,
        endpoint: lend.endpoint,
        call: lend.call,
        done: true,
    });
    (case.owned, case.changed) = (true, false);
}

#[test]
fn access_is_lent_renewed_and_withdrawn() {
    let mut case = Case::new(json!({}));
    case.resolve(&credential());
    assert_eq!(case.steps(), ["lend Absent"]);
    hand(&mut case);
    assert_eq!((case.steps(), case.plan().standing.reason), (vec![], Reason::Lent));
    let lent = case.record.lent.clone().expect("lent");
    let cases: [Turn<Case>; 7] = [
        ("lend BearerExpiring", |case| case.row("j1").expires = Timestamp(NOW.0 + DAY)),
        ("lend BearerRevoked", |case| case.holdings.live.clear()),
        ("lend KeyRotated", |case| case.holdings.kid = Some("k2".to_owned())),
        ("lend Requested", |case| case.renew = true),
        ("lend Changed", |case| case.holdings.issuer = "http://b".to_owned()),
        ("lend Changed", |case| case.record.lent.as_mut().expect("lent").what = Digest::of(b"other")),
        // It was begun, and the module may not have heard of it.
        ("lend Absent", |case| case.record.lent.as_mut().expect("lent").done = false),
    ];
    let live = case.holdings.clone();
    for (step, change) in cases {
        change(&mut case);
        assert_eq!(case.steps(), [step]);
        (case.record.lent, case.holdings, case.renew) = (Some(lent.clone()), live.clone(), false);
    }
    case.record.lent = Some(Lent { service: name("old"), ..lent.clone() });
    assert_eq!(case.steps(), ["withdraw Changed"], "who had it hears of it first");
    case.record.lent = Some(lent);
    case.suspended = true;
    assert_eq!(case.steps(), ["withdraw Changed", "revoke Replaced"]);
    case.leave();
    assert_eq!(case.steps(), ["withdraw NotDeclared", "revoke NotDeclared"]);
}

#[test]
fn what_cannot_be_put_together_is_said_where_it_stands() {
    let sink = |action| SinkEnd {
        port: Some(2003),
        space: "mailbox",
        mount: Some(("/mailbox", false)),
        action,
        credential: None,
    };
    let (hub, action) = (name("home"), Some(("/api/inbound", "mailbox:send")));
    let good =
        Ends { hub: Some(&hub), base: Some("http://127.0.0.1:1939"), vault_port: Some(2001), sink: Some(sink(action)) };
    let plain = json!({});
    let cases = [
        (&plain, Ends { vault_port: None, ..good.clone() }, "/spec/source/service"),
        (&plain, Ends { base: None, ..good.clone() }, "/spec/delivery"),
        (&plain, Ends { sink: Some(sink(None)), ..good.clone() }, "/spec/sink/action"),
        (&plain, Ends { sink: None, ..good.clone() }, "/spec/sink/action"),
        (&json!({ "source": { "event": "note.deleted" } }), good.clone(), "/spec/source/event"),
        (
            &json!({ "delivery": "direct" }),
            Ends { sink: Some(SinkEnd { mount: None, ..sink(action) }), ..good.clone() },
            "/spec/sink/service",
        ),
        (
            &json!({ "sink": { "prepare": { "scope": "vault:admin", "put": { "path": "/x", "body": {} } } } }),
            good.clone(),
            "/spec/sink/prepare/scope",
        ),
    ];
    for (change, ends, pointer) in cases {
        let why = inputs::resolve(&name("inbox"), &spec(change.clone()), &ends).expect_err(pointer);
        assert_eq!(why.pointer, pointer, "{why:?}");
    }
}

#[test]
fn events_are_those_that_a_vault_knows_and_filters_are_kept_to_the_letter() {
    assert_eq!(inputs::events("note.created"), Some(vec!["created".to_owned()]));
    assert_eq!(inputs::events("note.updated"), Some(vec!["updated".to_owned()]));
    assert_eq!(inputs::events("note.deleted"), None);
    let filter = json!({ "tags": ["a"], "metadata": { "n": { "gt": 1 } }, "has_content": true });
    let case = Case::new(json!({ "source": { "filter": filter } }));
    let mut all = Map::from_iter([("tags".to_owned(), json!(["a"]))]);
    all.extend([("metadata".to_owned(), json!({ "n": { "gt": 1 } })), ("has_content".to_owned(), json!(true))]);
    assert_eq!(case.inputs().wire.as_ref().expect("a trigger").trigger.when, all);
}

#[test]
fn dead_letters_and_a_full_queue_are_said_and_undo_nothing() {
    let mut case = Case::wired(json!({}));
    case.tally = Some(Tally { dead: 2, ..Tally::default() });
    let standing = case.plan().standing;
    assert_eq!((standing.reason, standing.ready), (Reason::DeadLetters, true));
    case.tally = Some(Tally { full: true, waiting: 9, ..Tally::default() });
    assert_eq!(case.plan().standing.reason, Reason::QueueFull);
}

#[test]
fn records_of_an_earlier_version_are_read_and_no_record_is_an_empty_one() {
    assert_eq!(Record::read("nonsense"), Record::default());
    let case = Case::wired(channel("main"));
    assert_eq!(Record::read(&case.record.write()), case.record);
    assert_eq!(case.record.jtis().collect::<BTreeSet<_>>(), BTreeSet::from([&"j1".to_owned()]));
}
