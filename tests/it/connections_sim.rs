//! Connections in a pretend world: every step of a story is crashed before and after each port call, vaults are moody, others meddle,
//! tokens are revoked and keys rotated. `SIM_SEEDS=N` widens the random lives, `SIM_SEED=S` replays one.

use std::collections::BTreeMap;
use std::path::Path;

use super::connections_stage::{Loan, Scene, Tie, vault};
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
}

const fn step(what: &'static str, act: fn(&mut Scene<'_>)) -> Step {
    Step { what, act, refuses: false }
}

/// Events of what is not declared any more are refused, and so are those whose token a person revoked, until the next look.
const fn refusing(what: &'static str, act: fn(&mut Scene<'_>)) -> Step {
    Step { what, act, refuses: true }
}

fn begin(scene: &mut Scene<'_>) {
    scene.begin();
    scene.story.write("v-default.yaml", &vault("default", "vault", "Retain"));
    scene.declare(Tie::new("inbox", "default"));
}

/// Plays these steps one after the other; each is crashed before and after every port call on the way.
fn play(dir: &Path, steps: &[Step]) -> u32 {
    let mut deaths = 0;
    let mut before = Scene::new(7, dir);
    for Step { what, act, refuses } in steps {
        let fork = || {
            let mut scene = before.fork();
            act(&mut scene);
            scene
        };
        let check = |scene: &Scene<'_>, die, how: &str| {
            scene.live(die, 0).unwrap_or_else(|why| panic!("{what}, {how}:\n  {why}"));
            let refused = scene.refused();
            assert!(*refuses || refused.is_empty(), "{what}, {how}: refused {refused:?}");
        };
        let plain = fork();
        plain.story.fate.reborn(None, 0, 7);
        plain.story.run(Mode::default(), Millis(60_000)).expect("a plain run");
        let calls = plain.story.fate.calls();
        assert!(calls > 3, "{what} made {calls} calls");
        for call in 0..calls {
            for side in [Side::Before, Side::After] {
                check(&fork(), Some((call, side)), &format!("death {side:?} call {call}"));
                deaths += 1;
            }
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
    assert!(play(dir.path(), &steps) > 200);
}

#[test]
fn a_crash_at_any_call_while_a_connection_is_suspended_and_renamed_leaves_nothing_behind() {
    let dir = scratch();
    let steps = [
        step("declared", begin),
        step("suspended", |scene| scene.change("inbox", |tie| tie.suspended = true)),
        step("direct and suspended", |scene| scene.change("inbox", |tie| tie.direct = true)),
        step("direct", |scene| scene.change("inbox", |tie| tie.suspended = false)),
        refusing("renamed", |scene| {
            scene.remove("inbox");
            scene.declare(Tie::new("post", "default"));
        }),
        step("renamed, with the name of its trigger", |scene| {
            let old = scene.declared.ties.get("post").expect("it is declared").trigger();
            scene.remove("post");
            scene.declare(Tie { trigger_name: Some(old), ..Tie::new("mail", "default") });
        }),
        refusing("removed", |scene| scene.remove("mail")),
        step("back", |scene| scene.declare(Tie::new("mail", "default"))),
    ];
    assert!(play(dir.path(), &steps) > 300);
}
