//! "Did you mean ...?": the nearest of some names.

/// Names further away than this are no help. 0.7 of 1.0 lets one wrong letter of three through, and no unrelated word.
const NEAR_ENOUGH: f64 = 0.7;

/// Longer words are no slips of the finger, and comparing them takes long.
const LONGEST_WORD: usize = 64;

/// The name that `word` most likely was meant to be. Case, `-` and `_` do not count, so `depends_on` finds `dependsOn`.
pub fn nearest<'a>(word: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.is_empty() || word.len() > LONGEST_WORD {
        return None;
    }
    let word = plain(word);
    let mut best: Option<(f64, &str)> = None;
    for name in names.into_iter().filter(|name| name.len() <= LONGEST_WORD) {
        let other = plain(name);
        let mut score = strsim::normalized_damerau_levenshtein(&word, &other);
        // `workdir` for `workingDir`, `cmd` for `command`: cut short, with the same beginning.
        // `TERM` for `SIGTERM`: the same end.
        let inside = other.starts_with(&word) || other.ends_with(&word);
        if word.len() >= 3 && (inside || word.starts_with(&other) && other.len() >= 3) {
            score = score.max(0.75);
        }
        if score >= NEAR_ENOUGH && best.is_none_or(|(top, _)| score > top) {
            best = Some((score, name));
        }
    }
    best.map(|(_, name)| name)
}

fn plain(word: &str) -> String {
    word.chars().filter(|c| !matches!(c, '-' | '_' | ' ')).flat_map(char::to_lowercase).collect()
}

/// `a`, `b` and `c`, each between back quotes; at most `most` of them.
pub fn listed<'a>(names: impl IntoIterator<Item = &'a str>, joined: &str, most: usize) -> String {
    let mut words: Vec<String> = names.into_iter().map(|name| format!("`{name}`")).collect();
    if words.len() > most {
        let rest = words.len() - most;
        words.truncate(most);
        return format!("{} and {rest} more", words.join(", "));
    }
    match words.pop() {
        Some(last) if !words.is_empty() => format!("{} {joined} {last}", words.join(", ")),
        Some(last) => last,
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_found_and_nothing_far_away() {
        let names = ["command", "module", "workingDir", "env", "envFile", "dependsOn", "port", "routes"];
        let near = |word| nearest(word, names);
        assert_eq!(near("comand"), Some("command"));
        assert_eq!(near("depends_on"), Some("dependsOn"));
        assert_eq!(near("WorkingDir"), Some("workingDir"));
        assert_eq!(near("working"), Some("workingDir"));
        assert_eq!(near("enviroment"), Some("env"));
        assert_eq!(near("ports"), Some("port"));
        assert_eq!(nearest("TERM", ["SIGTERM", "SIGINT"]), Some("SIGTERM"));
        assert_eq!(near("image"), None);
        assert_eq!(near("replicas"), None);
        assert_eq!(near(""), None);
    }

    #[test]
    fn names_are_listed_as_a_sentence_has_them() {
        assert_eq!(listed(["a"], "or", 9), "`a`");
        assert_eq!(listed(["a", "b", "c"], "or", 9), "`a`, `b` or `c`");
        assert_eq!(listed(["a", "b", "c"], "or", 2), "`a`, `b` and 1 more");
    }
}
