//! The limit of open files: raised for a daemon that serves many connections, as it was for the keeper and so for all modules. Programs
//! that use `select` or close every possible descriptor do not bear a high one.

use std::sync::OnceLock;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What this process was given, and what it took.
static LIMITS: OnceLock<(Option<u64>, Option<u64>)> = OnceLock::new();
/// More are never needed.
const ENOUGH: u64 = 65_536;

/// Raises the limit as far as this process may, once. Returns how many files may be open.
pub fn raise() -> u64 {
    let (given, raised) = *LIMITS.get_or_init(|| {
        let given = getrlimit(Resource::Nofile);
        let most = given.maximum.map_or(ENOUGH, |most| most.min(ENOUGH));
        let raised = given.current.map(|current| current.max(most));
        // Between the given and the hard limit nothing is refused; if it were, the old limit would serve as well.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: raised, maximum: given.maximum });
        (given.current, raised)
    });
    getrlimit(Resource::Nofile).current.or(raised).or(given).unwrap_or(ENOUGH)
}

/// Does something with the limit that was given: a child has the one that holds at its birth.
pub fn as_given<T>(act: impl FnOnce() -> T) -> T {
    let Some((given, raised)) = LIMITS.get().copied().filter(|(given, raised)| given != raised) else { return act() };
    let maximum = getrlimit(Resource::Nofile).maximum;
    let _ = setrlimit(Resource::Nofile, Rlimit { current: given, maximum });
    let result = act();
    let _ = setrlimit(Resource::Nofile, Rlimit { current: raised, maximum });
    result
}
