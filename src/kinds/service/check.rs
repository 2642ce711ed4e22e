//! What a Service can say wrong that no schema can tell, and what it comes to together with its module.json. Pure.

use super::declares::flaws;
use super::health;
use super::module::Module;
use super::schedule;
use super::spec::{Port, ProbeSpec, Route, ServiceSpec};
use crate::document::Document;
use crate::document::near::listed;
use crate::kinds::suspend;
use crate::model::problem::{Code, Problem};
use crate::model::route::{OWN, is_own};
use crate::model::unit::Millis;
use crate::ports::keeper::Bounds;
use crate::ports::probes::Role;

/// The variable that carries the port into a module.
const PORT: &str = "PORT";
/// No module is asked to say more often that it lives.
const SHORTEST_WATCHDOG: Millis = Millis(100);

/// Bytes. Within less the kernel cannot even load a program.
const LEAST_MEMORY: u64 = 1 << 20;

/// Looks at everything that one document says.
pub fn check(document: &Document, spec: &ServiceSpec, problems: &mut Vec<Problem>) {
    let mut look = Look { document, problems };
    look.what_runs(spec);
    for (role, field, probe) in health::declared(spec) {
        look.probe(field, role, probe, spec);
    }
    look.restart(spec);
    look.reload(spec);
    look.passed_socket(spec);
    look.environment(spec);
    look.routes(spec);
    look.dependencies(spec);
    look.resources(spec);
    look.declarations(spec);
    suspend::check(document, &spec.suspend, problems);
    schedule::check(document, spec, problems);
}

struct Look<'a> {
    document: &'a Document,
    problems: &'a mut Vec<Problem>,
}

impl Look<'_> {
    /// An error at the value.
    fn at(&self, code: Code, pointer: &str, message: impl Into<String>) -> Problem {
        Problem::error(code, self.document.value_at(pointer), message)
    }

    /// An error at the key.
    fn at_key(&self, code: Code, pointer: &str, message: impl Into<String>) -> Problem {
        Problem::error(code, self.document.key_at(pointer), message)
    }

    fn push(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    fn what_runs(&mut self, spec: &ServiceSpec) {
        match (&spec.command, &spec.module) {
            (Some(_), Some(_)) => {
                let message = "`spec` has both `command` and `module`; exactly one says what runs";
                let problem = self
                    .at_key(Code::Conflict, "/spec/command", message)
                    .label("`command` is given here")
                    .also(self.document.key_at("/spec/module"), "and `module` here")
                    .hint("keep `command`, or keep `module` and let its module.json supply the command");
                self.push(problem);
            }
            (None, None) => {
                let message = "`spec` needs exactly one of `command` and `module`";
                let problem = self
                    .at_key(Code::Conflict, "/spec", message)
                    .label("nothing here says what runs")
                    .hint("add `command: [program, argument]`, or `module: ./folder` with a .parachute/module.json");
                self.push(problem);
            }
            (Some(command), None) if command.first().is_some_and(String::is_empty) => {
                let problem = self.at(Code::OutOfRange, "/spec/command/0", "the program of `spec.command` is empty");
                self.push(problem);
            }
            (None, Some(module)) if module.is_empty() => {
                let problem = self.at(Code::OutOfRange, "/spec/module", "`spec.module` is empty");
                self.push(problem.hint("write `.` for the folder of this file"));
            }
            (Some(_), None) | (None, Some(_)) => {}
        }
        if let Some(words) = spec.command.as_ref().filter(|words| words.len() == 1) {
            // The most common slip: a whole command line as one word. A program with a blank in its path is rare.
            let line = &words[0];
            if line.contains(' ') && !line.starts_with(['/', '.']) {
                let parts: Vec<&str> = line.split_whitespace().collect();
                let problem = self
                    .at(
                        Code::OutOfRange,
                        "/spec/command/0",
                        format!("the program of `spec.command` cannot be `{line}`"),
                    )
                    .label("no shell takes this apart")
                    .hint(format!("one item for each word: [{}]", parts.join(", ")));
                self.push(problem);
            }
        }
    }

    fn probe(&mut self, field: &str, role: Role, probe: &ProbeSpec, spec: &ServiceSpec) {
        let given = given_probes(probe);
        match given[..] {
            [] => {
                let message = format!("`spec.{field}` needs exactly one of `http`, `tcp`, `exec` and `notify`");
                let problem = self
                    .at_key(Code::Conflict, &format!("/spec/{field}"), message)
                    .label("none of them is given")
                    .hint("for a plain check that the port answers, write `tcp: {}`");
                self.push(problem);
            }
            [_] => {}
            [first, ref more @ ..] => {
                let key = |name: &str| self.document.key_at(&format!("/spec/{field}/{name}"));
                let message =
                    format!("`spec.{field}` has {}; exactly one of them decides", listed(given.clone(), "and", 4));
                let mut problem =
                    Problem::error(Code::Conflict, key(first), message).label(format!("`{first}` is given here"));
                for name in more {
                    problem = problem.also(key(name), format!("and `{name}` here"));
                }
                self.push(problem);
            }
        }
        // With a module, the port may come from its module.json.
        let own_port = spec.port.is_some() || spec.module.is_some();
        let portless = [
            ("http", probe.http.as_ref().is_some_and(|probe| probe.port.is_none())),
            ("tcp", probe.tcp.as_ref().is_some_and(|probe| probe.port.is_none())),
        ];
        for (name, _) in portless.into_iter().filter(|(_, missing)| *missing && !own_port) {
            let message = format!("`spec.{field}.{name}` has no port to ask");
            let problem = self
                .at_key(Code::MissingField, &format!("/spec/{field}/{name}"), message)
                .label("the service has no port of its own")
                .hint("add `port: auto` to the spec, or `port:` to the probe");
            self.push(problem);
        }
        if role != Role::Readiness && probe.success_threshold > 1 {
            let message = format!("`spec.{field}.successThreshold` can only be 1: one good answer says enough");
            let problem = self.at(Code::OutOfRange, &format!("/spec/{field}/successThreshold"), message);
            self.push(problem.hint("only `readiness` may ask for more good answers in a row"));
        }
        if role == Role::Liveness && probe.notify.is_some() && probe.patience() < SHORTEST_WATCHDOG {
            let message = format!(
                "`spec.liveness` restarts the module when it is silent for {}, which is too short",
                probe.patience()
            );
            let problem = self.at_key(Code::OutOfRange, "/spec/liveness/notify", message);
            self.push(problem.hint(format!(
                "`period` times `failureThreshold` must be at least {SHORTEST_WATCHDOG}; a busy machine delays every process that long"
            )));
        }
    }

    fn reload(&mut self, spec: &ServiceSpec) {
        if spec.reload.is_some() && spec.files.is_empty() {
            let message = "`spec.reload` has no `files` to tell about";
            let problem = self.at_key(Code::MissingField, "/spec/reload", message).label("nothing would ever cause it");
            self.push(problem.hint("name the files that the program reads: `files: [app.conf]`"));
        }
    }

    fn passed_socket(&mut self, spec: &ServiceSpec) {
        if !spec.pass_socket {
            return;
        }
        if spec.port.is_none() && spec.module.is_none() {
            let message = "`spec.passSocket` has no port to open";
            let problem = self.at_key(Code::MissingField, "/spec/passSocket", message);
            self.push(problem.hint("add `port: auto` to the spec"));
        }
        let asks = |probe: &ProbeSpec| probe.tcp.is_none();
        let told = spec.readiness.as_ref().map_or(spec.module.is_some(), asks);
        if !told {
            let at = if spec.readiness.is_some() { "/spec/readiness/tcp" } else { "/spec/passSocket" };
            let message = "with `spec.passSocket` the port accepts connections before the program does";
            let problem = self.at_key(Code::Conflict, at, message).label("this says nothing about the program");
            self.push(problem.hint("say how it is ready: `readiness: { http: { path: /health } }`, or `notify: {}`"));
        }
    }

    fn restart(&mut self, spec: &ServiceSpec) {
        let backoff = &spec.restart.backoff;
        if backoff.initial > backoff.max {
            let message =
                format!("`spec.restart.backoff` begins with {} and may not pass {}", backoff.initial, backoff.max);
            let problem = self
                .at(Code::Conflict, "/spec/restart/backoff/initial", message)
                .label("the first pause")
                .also(self.document.value_at("/spec/restart/backoff/max"), "is longer than the longest one")
                .hint("make `max` at least as long as `initial`");
            self.push(problem);
        }
        if backoff.initial.0 == 0 {
            let message = "`spec.restart.backoff.initial` cannot be nothing: a program that dies at once would spin";
            let problem = self.at(Code::OutOfRange, "/spec/restart/backoff/initial", message);
            self.push(problem.hint("the default is 100ms"));
        }
    }

    fn environment(&mut self, spec: &ServiceSpec) {
        let port = |names: Vec<&str>| names.into_iter().any(|name| name == PORT);
        let own = [
            ("env", port(spec.env.keys().map(|name| name.0.as_str()).collect())),
            ("secretEnv", port(spec.secret_env.keys().map(|name| name.0.as_str()).collect())),
        ];
        for (field, _) in own.into_iter().filter(|(_, there)| *there) {
            let message = "PORT is given by trueup; set `spec.port`";
            let problem = self.at_key(Code::Conflict, &format!("/spec/{field}/{PORT}"), message);
            let hint = match spec.env.iter().find(|(name, _)| name.0 == PORT) {
                Some((_, value)) if value.parse::<u16>().is_ok() => {
                    format!("remove it, and write `port: {value}` in the spec")
                }
                _ => "remove it, and write `port: auto` or a number in the spec".to_owned(),
            };
            self.push(problem.hint(hint));
        }
        for name in spec.env.keys().filter(|name| spec.secret_env.contains_key(*name)) {
            let message = format!("`{}` is given twice, in `env` and in `secretEnv`", name.0);
            let problem = self
                .at_key(Code::Conflict, &format!("/spec/secretEnv/{}", name.0), message)
                .label("here as a secret")
                .also(self.document.key_at(&format!("/spec/env/{}", name.0)), "and here in the open")
                .hint("keep one of them");
            self.push(problem);
        }
    }

    fn routes(&mut self, spec: &ServiceSpec) {
        for (index, route) in spec.routes.iter().enumerate() {
            let path = format!("/spec/routes/{index}/path");
            let unreachable = |segment: &str| segment == "." || segment == "..";
            if is_own(&route.path) {
                let message = format!("the hub answers `{}` itself", route.path);
                let problem = self.at(Code::RouteClash, &path, message).label("no request would come here");
                self.push(problem.hint(format!("it keeps /{} for itself; choose another path", OWN.join(", /"))));
            } else if route.path.split('/').any(unreachable) || route.path.contains("//") {
                let message = format!("no request can have the path `{}`", route.path);
                let problem = self.at(Code::Conflict, &path, message);
                self.push(problem.hint("write it without `.`, `..` and empty segments"));
            }
        }
        for (index, route) in spec.routes.iter().enumerate() {
            let same = |other: &&Route| mount(&other.path) == mount(&route.path);
            let Some(before) = spec.routes[..index].iter().position(|other| same(&other)) else { continue };
            let message = format!("the route `{}` stands twice in one service", mount(&route.path));
            let problem = self
                .at(Code::RouteClash, &format!("/spec/routes/{index}/path"), message)
                .label("again here")
                .also(self.document.value_at(&format!("/spec/routes/{before}/path")), "first here");
            self.push(problem);
        }
        if !spec.routes.is_empty() && spec.port.is_none() && spec.module.is_none() {
            let message = "`spec.routes` leads to a service without a port";
            let problem =
                self.at_key(Code::MissingField, "/spec/routes", message).label("requests would have nowhere to go");
            self.push(problem.hint("add `port: auto` to the spec"));
        }
    }

    fn declarations(&mut self, spec: &ServiceSpec) {
        let given = [
            ("events", spec.events.is_empty()),
            ("actions", spec.actions.is_empty()),
            ("credentials", spec.credentials.is_empty()),
        ];
        if spec.module.is_some() {
            for (field, _) in given.into_iter().filter(|(_, empty)| !empty) {
                let message = format!("`spec.{field}` stands beside `module`, whose module.json declares them");
                let problem = self
                    .at_key(Code::Conflict, &format!("/spec/{field}"), message)
                    .also(self.document.key_at("/spec/module"), "this module.json says what it has")
                    .hint("add them to the module.json, or use `command` and `workingDir` instead of `module`");
                self.push(problem);
            }
            return;
        }
        // Without a module.json, the service's own name is its name space.
        let name = self.document.id.name.as_str();
        for flaw in flaws(name, &spec.events, &spec.actions, &spec.credentials, &[]) {
            let code = if flaw.other.is_some() { Code::Conflict } else { Code::OutOfRange };
            let pointer = match flaw.pointer.as_str() {
                "/name" => "/metadata/name".to_owned(),
                below => format!("/spec{below}"),
            };
            let mut problem = self.at(code, &pointer, flaw.message);
            if let Some(other) = flaw.other {
                problem =
                    problem.label("again here").also(self.document.value_at(&format!("/spec{other}")), "first here");
            }
            problem.hint = flaw.hint;
            self.push(problem);
        }
    }

    fn resources(&mut self, spec: &ServiceSpec) {
        if spec.resources.memory.is_some_and(|memory| memory.0 < LEAST_MEMORY) {
            let message = "`spec.resources.memory` is less than any program needs";
            let problem = self.at(Code::OutOfRange, "/spec/resources/memory", message);
            self.push(problem.hint("write at least 1MiB"));
        }
        for (limit, pair) in spec.resources.rlimits.given() {
            let Bounds { soft, hard } = pair.bounds();
            if hard.is_none_or(|hard| soft.is_some_and(|soft| soft <= hard)) {
                continue;
            }
            let name = limit.as_str();
            let pointer = |end: &str| format!("/spec/resources/rlimits/{name}/{end}");
            let message = format!("the soft limit of `{name}` is beyond its hard limit");
            let problem = self
                .at(Code::Conflict, &pointer("soft"), message)
                .label("more than it may be")
                .also(self.document.value_at(&pointer("hard")), "the most it may be")
                .hint("make `hard` at least as much as `soft`");
            self.push(problem);
        }
    }

    fn dependencies(&mut self, spec: &ServiceSpec) {
        for (index, dependency) in spec.depends_on.iter().enumerate() {
            let pointer = format!("/spec/dependsOn/{index}/service");
            if dependency.service == self.document.id.name {
                let message = format!("{} depends on itself", self.document.id);
                let problem = self.at(Code::Cycle, &pointer, message);
                self.push(problem.hint("remove this dependency"));
            }
            let before = spec.depends_on[..index].iter().position(|other| other.service == dependency.service);
            if let Some(before) = before {
                let message = format!("`{}` stands twice in `spec.dependsOn`", dependency.service);
                let problem = self
                    .at(Code::Conflict, &pointer, message)
                    .label("again here")
                    .also(self.document.value_at(&format!("/spec/dependsOn/{before}/service")), "first here")
                    .hint("keep the one with the condition you mean");
                self.push(problem);
            }
        }
    }
}

fn given_probes(probe: &ProbeSpec) -> Vec<&'static str> {
    let all = [
        ("http", probe.http.is_some()),
        ("tcp", probe.tcp.is_some()),
        ("exec", probe.exec.is_some()),
        ("notify", probe.notify.is_some()),
    ];
    all.into_iter().filter(|(_, given)| *given).map(|(name, _)| name).collect()
}

/// A route's path as it is compared: without a slash at the end.
pub fn mount(path: &str) -> &str {
    match path.trim_end_matches('/') {
        "" => "/",
        trimmed => trimmed,
    }
}

// What stands in the spec wins over what its module.json supplies.

/// The port the service asks for.
pub fn effective_port(spec: &ServiceSpec, module: Option<&Module>) -> Option<Port> {
    spec.port.or_else(|| module.map(|module| Port::Fixed(module.port)))
}

/// The command to run; `None` when the module.json has none.
pub fn effective_command<'a>(spec: &'a ServiceSpec, module: Option<&'a Module>) -> Option<&'a [String]> {
    let own = spec.command.as_deref();
    own.or_else(|| module.and_then(|module| module.start_cmd.as_deref()))
}

/// The name of the service's row in services.json.
pub fn effective_registration<'a>(spec: &'a ServiceSpec, module: Option<&'a Module>) -> Option<&'a str> {
    let own = spec.registers_as.as_deref();
    own.or_else(|| module.map(|module| module.manifest_name.as_str()))
}

/// The routes: the spec's own, else one for each path of its module.json.
pub fn effective_routes(spec: &ServiceSpec, module: Option<&Module>) -> Vec<Route> {
    let Some(module) = module.filter(|_| spec.routes.is_empty()) else { return spec.routes.clone() };
    let route = |path: &String| Route {
        path: path.clone(),
        strip_prefix: module.strip_prefix,
        websocket: module.websocket,
        exposure: Default::default(),
    };
    module.paths.iter().map(route).collect()
}
