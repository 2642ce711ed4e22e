//! The YAML parser's complaints, in words for people who write manifests.

use serde_yaml::granit_parser::ErrorKind;

use super::compose::MAX_DEPTH;
use super::text::{Place, Text};
use crate::model::problem::{Code, Problem};

/// What the composer knew when the parser gave up.
pub(super) struct Known {
    /// Up to where the text has been read as values.
    pub read: usize,
    /// The innermost bracket that is still open.
    pub open: Option<Place>,
}

/// Makes a problem of a parser error at a byte offset.
pub(super) fn explain(text: &Text, at: usize, kind: &ErrorKind, known: Known) -> Problem {
    let code = match kind {
        ErrorKind::RecursionLimitExceeded => Code::LimitExceeded,
        _ => Code::Syntax,
    };
    if let Some(problem) = open_quote(text, at, kind, &known) {
        return problem;
    }
    let at = nearer(text, at, kind);
    let width = text.as_str().get(at..).and_then(|rest| rest.chars().next()).filter(|c| *c != '\n');
    let span = text.span(Place::new(at, at + width.map_or(0, char::len_utf8)));
    let (message, hint) = words(kind);
    let mut problem = Problem::error(code, span, message);
    if let Some(open) = known.open.filter(|open| open.start as usize != at && is_about_brackets(kind)) {
        let bracket = &text.as_str()[open.start as usize..open.end as usize];
        problem = problem.also(text.span(open), format!("this `{bracket}` is still open"));
    }
    if let Some(hint) = hint {
        problem = problem.hint(hint);
    }
    problem
}

/// The parser notices an open quote where the text stops making sense, which may be the end of the file. What helps is
/// where it was opened: the first quote behind what could be read.
fn open_quote(text: &Text, at: usize, kind: &ErrorKind, known: &Known) -> Option<Problem> {
    use ErrorKind as E;
    let quoted =
        matches!(kind, E::UnclosedQuotedScalar | E::DocumentIndicatorInQuotedScalar | E::InvalidQuotedScalarIndent);
    if !quoted {
        return None;
    }
    let between = text.as_str().get(known.read..at.max(known.read))?;
    let opened = known.read + between.find(['"', '\''])?;
    let problem = Problem::error(Code::Syntax, text.span(Place::new(opened, opened + 1)), "a quote is never closed");
    let problem = problem.label("opened here").hint("close it with the same quote at the end of the text");
    Some(if at > opened + 1 && at < text.as_str().len() {
        problem.also(text.span(Place::new(at, at + 1)), "still open here")
    } else {
        problem
    })
}

/// Moves from where the parser stood to what it stumbled over.
fn nearer(text: &Text, at: usize, kind: &ErrorKind) -> usize {
    use ErrorKind as E;
    let source = text.as_str();
    match kind {
        E::TabInIndentation | E::TabInBlockIndentation | E::TabNotAllowed | E::TabInPlainScalar => {
            let line = source[..at.min(source.len())].rfind('\n').map_or(0, |end| end + 1);
            let end = source[line..].find('\n').map_or(source.len(), |end| line + end);
            source[line..end].find('\t').map_or(at, |tab| line + tab)
        }
        E::UnknownQuotedScalarEscape => {
            let mut rest = source[at.min(source.len())..].char_indices();
            while let Some((offset, character)) = rest.next() {
                if character == '\\' && !rest.next().is_some_and(|(_, next)| is_escape(next)) {
                    return at + offset;
                }
            }
            at
        }
        _ => at,
    }
}

/// The escapes of YAML 1.2, chapter 5.7.
fn is_escape(character: char) -> bool {
    matches!(
        character,
        '0' | 'a'
            | 'b'
            | 't'
            | '\t'
            | 'n'
            | 'v'
            | 'f'
            | 'r'
            | 'e'
            | ' '
            | '"'
            | '/'
            | '\\'
            | 'N'
            | '_'
            | 'L'
            | 'P'
            | 'x'
            | 'u'
            | 'U'
            | '\n'
            | '\r'
    )
}

fn is_about_brackets(kind: &ErrorKind) -> bool {
    use ErrorKind as E;
    !matches!(kind, E::RecursionLimitExceeded | E::UnexpectedCharacter { .. } | E::UnknownQuotedScalarEscape)
}

const QUOTE: &str = "put the whole text between quotes";
const INDENT: &str = "keys of one mapping begin in the same column; use spaces, two for each level";

/// Message and hint. What is not named here keeps the parser's own words, which are good enough for the rare ones.
fn words(kind: &ErrorKind) -> (String, Option<&'static str>) {
    use ErrorKind as E;
    let say = |message: &str, hint: &'static str| (message.to_owned(), Some(hint));
    match kind {
        E::RecursionLimitExceeded => (format!("nested more than {MAX_DEPTH} deep"), None),
        E::TabInIndentation | E::TabInBlockIndentation | E::TabNotAllowed | E::TabInPlainScalar => {
            say("a tab where only spaces may stand", "indent with spaces; most editors can be told to for YAML")
        }
        E::TabAtBlockScalarStart => say("a block of text cannot begin with a tab", "indent with spaces"),
        E::UnexpectedCharacter { character } => {
            (format!("text cannot begin with `{}`", character.escape_debug()), Some(QUOTE))
        }
        E::MappingValueNotAllowed => say(
            "a second `: ` in one line, or a wrong indentation",
            "put text that contains \": \" between quotes; indent a nested mapping on lines of its own",
        ),
        E::InvalidIndentation | E::ExpectedBlockMappingKey | E::MappingKeyNotAllowed => {
            say("this line does not fit the indentation of the lines before it", INDENT)
        }
        E::SimpleKeyExpected | E::InvalidSimpleKey => {
            say("a key without `:`", "write `key: value`; text over several lines is indented below its key")
        }
        E::ExpectedBlockSequenceEntry => {
            say("a list item must begin with `- `", "items of one list begin in the same column, each with `- `")
        }
        E::BlockSequenceEntryNotAllowed => {
            say("a list cannot begin here", "put the list on the lines below its key, each item with `- `")
        }
        E::UnclosedQuotedScalar => say("a quote that is opened here is never closed", "close it with the same quote"),
        E::DocumentIndicatorInQuotedScalar => {
            say("a quote is still open where the next document begins", "close it with the same quote")
        }
        E::InvalidTrailingSingleQuotedScalar | E::InvalidTrailingDoubleQuotedScalar => {
            say("text behind the closing quote", "a comma may be missing, or the quotes belong around the whole value")
        }
        E::UnknownQuotedScalarEscape => say(
            "an escape that YAML does not know",
            "write \\\\ for a backslash, or use 'single quotes', which know no escapes",
        ),
        E::ExpectedNodeContent => say("a value is missing", "write a value, or \"\" for empty text"),
        E::ExpectedDocumentStart => {
            say("more text after the end of the document", "separate documents with a line `---`")
        }
        E::UndeclaredTagHandle => say("a tag that is not declared", "text that begins with ! needs quotes"),
        E::CommentNotSeparated => say("a comment needs a space before its #", "text that contains # needs quotes"),
        E::MissingAnchorOrAliasName => {
            say("a name is missing after `&` or `*`", "text that begins with & or * needs quotes")
        }
        E::InvalidBlockScalarIndent => say(
            "a line of this block of text is indented less than its first line",
            "indent all lines of the block alike",
        ),
        E::CommentInterceptedScalar => say("a comment within text over several lines", "put the text between quotes"),
        _ => bracket_words(kind),
    }
}

/// The same for lists and mappings in brackets.
fn bracket_words(kind: &ErrorKind) -> (String, Option<&'static str>) {
    use ErrorKind as E;
    let say = |message: &str, hint: &'static str| (message.to_owned(), Some(hint));
    match kind {
        E::UnclosedFlowCollection { open: '[' } | E::UnexpectedEofFlowSequence => {
            say("a list that begins with `[` is never closed", "close it with `]`")
        }
        E::UnclosedFlowCollection { .. } | E::UnexpectedEofFlowMapping | E::UnexpectedEofImplicitFlowMapping => {
            say("a mapping that begins with `{` is never closed", "close it with `}`")
        }
        E::MismatchedFlowCollectionEnd { open, close } => {
            (format!("`{open}` is closed by `{close}`"), Some("close brackets in the order they were opened"))
        }
        E::MisplacedFlowCollectionEnd => {
            say("a closing bracket without an opening one", "remove it, or quote the text")
        }
        E::ExpectedFlowSequenceSeparator => {
            say("`,` or `]` is missing", "separate items with commas; quote text that contains brackets or commas")
        }
        E::ExpectedFlowMappingSeparator => {
            say("`,` or `}` is missing", "separate entries with commas; quote text that contains brackets or commas")
        }
        E::InvalidColonPlacement => say(
            "a `key: value` where a bracket is still open",
            "close the bracket, or put text that contains `:` between quotes",
        ),
        _ => (kind.to_string(), None),
    }
}
