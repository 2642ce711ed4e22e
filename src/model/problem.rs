//! A mistake of a person, as data: stable code, severity, where, what, and what to do. Problems are collected,
//! never thrown, so that one run reports every one of them.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::span::Span;

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum Severity {
    /// The document cannot be used; what it declares is held at its last good version.
    Error,
    /// Worth a look; nothing is held back.
    Warning,
}

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $variant:ident = $text:literal,)+) => {
        /// The stable code of a problem. Codes are never reused; the doc comment is what `trueup explain CODE` prints.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Code { $($(#[doc = $doc])+ $variant,)+ }
        impl Code {
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
            /// The long explanation.
            pub fn explain(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc, "\n",)+),)+ }
            }
        }
    };
}

codes! {
    /// A file or folder could not be read. While that is so, nothing is removed.
    Unreadable = "E0001",
    /// A file is not UTF-8 text.
    NotUtf8 = "E0002",
    /// A file, or the tree as a whole, is larger than the limits allow.
    TooLarge = "E0003",
    /// A symbolic link leads out of the manifest folder. Put the file itself into the folder.
    LeavesRoot = "E0004",
    /// The manifest folder is missing or holds no Hub, so it cannot be the tree. Nothing is removed.
    NotATree = "E0005",
    /// Anyone can write the manifest folder, and so run programs as you. Take the write permission away.
    UnsafePermissions = "E0006",
    /// The text is not YAML (or JSON).
    Syntax = "E0101",
    /// A field that this kind does not have. A misspelt field would otherwise be silently ignored.
    UnknownField = "E0102",
    /// The same key twice in one mapping; YAML readers would silently take the last.
    DuplicateKey = "E0103",
    /// A value of the wrong type.
    WrongType = "E0104",
    /// A value outside what the field allows.
    OutOfRange = "E0105",
    /// A required field is missing.
    MissingField = "E0106",
    /// Too deep, too many nodes, or too many aliases in one document.
    LimitExceeded = "E0107",
    /// An apiVersion that this version of trueup does not know.
    UnknownApiVersion = "E0108",
    /// A kind that this version of trueup does not know.
    UnknownKind = "E0109",
    /// Fields that contradict each other, or of which exactly one must be given.
    Conflict = "E0110",
    /// An S3 endpoint without TLS on another network: everything that is sent there can be read on the way.
    PlainEndpoint = "E0111",
    /// Two documents declare the same kind and name. Neither is used.
    DuplicateIdentity = "E0201",
    /// A reference to something that no document declares.
    BadReference = "E0202",
    /// Dependencies that lead back to themselves, so that nothing could start first.
    Cycle = "E0203",
    /// Two services want the same port.
    PortClash = "E0204",
    /// More than one Hub; a tree has exactly one.
    ManyHubs = "E0205",
    /// Two services want the same route.
    RouteClash = "E0206",
    /// Two services register under the same name in services.json.
    RegistrationClash = "E0207",
    /// A service needs another that is suspended. What runs goes on; it is not started again before the other one runs.
    SuspendedDependency = "E0208",
    /// Two backends lie at the same place: moving blobs from one to the other would lose them.
    PlaceClash = "E0209",
    /// More than one Storage; a tree has one at most.
    ManyStorages = "E0210",
    /// A connection that goes and a new one that says the same: as a new one its vault forgets which notes it has sent.
    Renamed = "E0221",
    /// An event that the service does not declare. `trueup get events` lists those that are declared.
    UnknownEvent = "E0213",
    /// An action that the service does not declare. `trueup get actions` lists those that are declared.
    UnknownAction = "E0214",
    /// A credential that the service does not declare. `trueup get credentials` lists those that are declared.
    UnknownCredential = "E0215",
    /// An event for which vaults have no triggers, so that no connection can listen to it.
    NoTrigger = "E0216",
    /// An action that no connection can use: it lacks an endpoint or a scope, or is provisioned in a way that is not known.
    NotConnectable = "E0217",
    /// A service that a connection has to call, and that has no port, or no route where one is needed.
    Unreachable = "E0218",
    /// Two connections want a trigger of the same name at the same vault. Each would take the other's away.
    TriggerClash = "E0219",
    /// A schema that a module declared and that is none. Connections are checked by the names in it only.
    BrokenSchema = "E0220",
    /// A vault that is declared for another service than the one that a connection names.
    OtherVault = "E0222",
    /// Two Vaults declare the same vault, or there are two of one name in two services.
    VaultClash = "E0223",
    /// A backend lies in the manifest folder, where every blob that is written looks like a change of the manifests.
    BackendInTree = "E0211",
    /// A module folder without a usable `.parachute/module.json`.
    BadModule = "E0301",
    /// An envFile that is missing or has a line that is not `KEY=VALUE`.
    BadEnvFile = "E0302",
    /// A secret that could not be read (file missing, variable unset, command failed).
    BadSecret = "E0303",
    /// The command was not found.
    CommandNotFound = "E0304",
    /// The command exists and is not executable.
    NotExecutable = "E0305",
    /// The working directory does not exist.
    BadWorkingDir = "E0306",
    /// The port is held by a process that is not ours. It is named, and never stopped.
    PortTaken = "E0307",
    /// A changed version was not ready in time. The last one that was runs instead; the failed one is not tried again until it is
    /// changed, or `trueup restart` asks for it.
    RolledBack = "E0320",
    /// A file that `files` names is missing or cannot be read.
    BadFile = "E0321",
    /// A file with a secret that everyone on this machine can read. `chmod 600` takes that away.
    LooseSecret = "E0330",
    /// A backend that refuses what is asked of it: credentials, a bucket that is not there, a folder that may not be written, somebody
    /// else's mark.
    BackendRefused = "E0341",
    /// Blobs of which no backend has a good copy. They are left where they are; everything else goes on. They can be put again, or given
    /// up by name with `abandon`.
    Quarantined = "E0340",
    /// A user or group that this machine does not have.
    UnknownUser = "E0311",
    /// Something that only root may do, or root and that very user: running a program as another user, serving it before others, or
    /// raising a hard limit.
    NeedsRights = "E0312",
    /// A limit of memory, cores or processes that this machine cannot keep: it needs a cgroup (v2) that trueup may write to, with
    /// the controller of that name.
    NoController = "E0313",
    /// No port is left in the Hub's range for a service that wants one chosen.
    NoFreePort = "E0309",
    /// A plan wants to remove more than the budget allows.
    PruneBudget = "E0401",
    /// The operating system refused to start the program.
    SpawnFailed = "E0308",
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A place, with what is to be said about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    pub span: Span,
    pub text: String,
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub code: Code,
    pub severity: Severity,
    pub message: String,
    /// The first label is where the problem is reported; the others show what it collides with.
    pub labels: Vec<Label>,
    pub hint: Option<String>,
}

impl Problem {
    pub fn error(code: Code, at: Span, message: impl Into<String>) -> Self {
        let label = Label { span: at, text: String::new() };
        Self { code, severity: Severity::Error, message: message.into(), labels: vec![label], hint: None }
    }

    #[must_use]
    pub fn warning(mut self) -> Self {
        self.severity = Severity::Warning;
        self
    }

    /// The words under the caret of the first label.
    #[must_use]
    pub fn label(mut self, text: impl Into<String>) -> Self {
        self.labels[0].text = text.into();
        self
    }

    /// Another place involved.
    #[must_use]
    pub fn also(mut self, span: Span, text: impl Into<String>) -> Self {
        self.labels.push(Label { span, text: text.into() });
        self
    }

    #[must_use]
    pub fn hint(mut self, text: impl Into<String>) -> Self {
        self.hint = Some(text.into());
        self
    }

    /// Where it is reported.
    pub fn span(&self) -> &Span {
        &self.labels[0].span
    }
}
