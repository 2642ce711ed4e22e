//! Which scopes are a module's own. With a token of any other one it would govern what is not its.

/// Names whose scopes and audiences mean the hub itself. No module speaks of them.
pub const RESERVED: [&str; 4] = ["parachute", "hub", "operator", "inbox"];

/// Whether the name is the hub's, in whatever case it is written.
pub fn is_reserved(module: &str) -> bool {
    RESERVED.iter().any(|name| name.eq_ignore_ascii_case(module))
}

/// Whether this is exactly `<module>:<verb>`, of a module that is not the hub itself. `vault:lab:admin` is no scope of the module `vault`:
/// it governs one vault.
pub fn is_own(module: &str, scope: &str) -> bool {
    let verb = scope.strip_prefix(module).and_then(|rest| rest.strip_prefix(':'));
    let is_word = |text: &str| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    };
    !is_reserved(module) && is_word(module) && verb.is_some_and(is_word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_is_the_module_and_one_verb() {
        for (module, scope) in [("agent", "agent:send"), ("vault", "vault:write"), ("a-b", "a-b:x.y_z")] {
            assert!(is_own(module, scope), "{scope}");
        }
        for (module, scope) in [
            ("vault", "vault:lab:admin"),
            ("agent", "agent"),
            ("agent", "agent:"),
            ("agent", "agents:send"),
            ("agent", "other:send"),
            ("agent", "agent:send vault:lab:admin"),
            ("parachute", "parachute:host:auth"),
            ("parachute", "parachute:x"),
            ("hub", "hub:admin"),
            ("Operator", "Operator:x"),
            ("inbox", "inbox:victim"),
            ("", ":x"),
        ] {
            assert!(!is_own(module, scope), "{module} {scope}");
        }
    }
}
