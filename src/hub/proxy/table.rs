//! Which service a path belongs to: the longest mount that is a prefix of it, segment by segment. Pure; built once per wish and shared by
//! all requests.
//!
//! Modules do not agree on what a path is: some decode `%2e`, `%2f` or `%5c` before they route, some collapse `//`, some cut `;...` off,
//! some do not mind the case. So every path is also read as the most generous of them would. A path that then has a segment `.` or `..`,
//! a NUL, a backslash or bytes that are no UTF-8, or that then belongs to another mount, is refused: otherwise another spelling could
//! leave a mount, or reach one that is not for everybody. A reading that differs by case alone is refused only if it leads to such a
//! one. Everything else is passed on as it was written, `%2F` in a name included.

use std::collections::HashMap;
use std::sync::Arc;

use hyper::header::HeaderValue;

use crate::model::id::Name;
use crate::model::route::Exposure;
use crate::ports::hub::{Mount, Upstream, Wish};

/// Decoding is tried so often: whoever decodes twice is believed, whoever decodes more is not.
const DECODINGS: usize = 2;

/// A service as requests need it.
#[derive(Debug)]
pub struct Target {
    pub service: Name,
    pub upstream: Arc<Upstream>,
    /// `127.0.0.1` and its port.
    pub host: HeaderValue,
}

/// A mount and whose it is.
#[derive(Debug)]
pub struct Route {
    pub target: Arc<Target>,
    /// The position of the target in [`Table::targets`].
    pub slot: usize,
    pub mount: Mount,
}

/// All mounts.
#[derive(Debug, Default)]
pub struct Table {
    pub targets: Vec<Arc<Target>>,
    routes: HashMap<String, Arc<Route>>,
    /// The same in lower case, if any of them is not for everybody.
    folded: HashMap<String, Arc<Route>>,
    /// A mount has capitals itself, so that a path without any is worth a second look.
    mixed: bool,
    /// How many segments the longest mount has.
    depth: usize,
    root: Option<Arc<Route>>,
}

/// Why a path is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPath {
    #[error("the path does not begin with '/'")]
    NoPath,
    #[error("the path begins with '//'")]
    TwoSlashes,
    #[error("the path has a '%' without two hexadecimal digits behind it, or bytes that are no UTF-8")]
    Encoding,
    #[error("the path has a control character or a backslash")]
    Character,
    #[error("the path has a segment '.' or '..'")]
    Dots,
    #[error("the path can be read as a path of another service; spell it plainly")]
    Ambiguous,
}

impl Table {
    pub fn of(wish: &Wish) -> Self {
        let mut table = Self::default();
        let mut protected = false;
        for (service, upstream) in &wish.upstreams {
            let slot = table.targets.len();
            let host = HeaderValue::try_from(format!("127.0.0.1:{}", upstream.port.unwrap_or_default()));
            let host = host.unwrap_or_else(|_| HeaderValue::from_static("127.0.0.1"));
            let target = Arc::new(Target { service: service.clone(), upstream: upstream.clone(), host });
            table.targets.push(target.clone());
            for mount in &upstream.routes {
                protected |= mount.exposure != Exposure::Allowed;
                table.mixed |= mount.path.bytes().any(|byte| byte.is_ascii_uppercase());
                let route = Arc::new(Route { target: target.clone(), slot, mount: mount.clone() });
                if mount.path == "/" {
                    table.root.get_or_insert(route);
                    continue;
                }
                table.depth = table.depth.max(mount.path.matches('/').count());
                // Two services with one mount are a mistake that the tree is checked for; the first by name keeps it.
                table.folded.entry(mount.path.to_lowercase()).or_insert_with(|| route.clone());
                table.routes.entry(mount.path.clone()).or_insert(route);
            }
        }
        if !protected {
            table.folded.clear();
        }
        table
    }

    /// Whose path it is; `None` when it is nobody's. The path is as it was sent, without the query.
    ///
    /// # Errors
    /// [`BadPath`] when it can be read in more than one way and that matters.
    pub fn resolve(&self, path: &str) -> Result<Option<&Arc<Route>>, BadPath> {
        let bytes = path.as_bytes();
        if bytes.first() != Some(&b'/') {
            return Err(BadPath::NoPath);
        }
        if bytes.get(1) == Some(&b'/') {
            return Err(BadPath::TwoSlashes);
        }
        let route = self.find(&self.routes, path);
        if !is_plain(bytes) {
            self.compare(path, route)?;
        }
        if !self.folded.is_empty() && (self.mixed || bytes.iter().any(u8::is_ascii_uppercase)) {
            self.compare_folded(path, route)?;
        }
        Ok(route)
    }

    /// The same mount of the same service in this table.
    pub fn again(&self, route: &Route) -> Option<&Arc<Route>> {
        let found = if route.mount.path == "/" { self.root.as_ref() } else { self.routes.get(&route.mount.path) };
        found.filter(|found| found.mount == route.mount && found.target.service == route.target.service)
    }

    fn find<'a>(&'a self, routes: &'a HashMap<String, Arc<Route>>, path: &str) -> Option<&'a Arc<Route>> {
        if self.depth > 0 {
            let mut end = path.len();
            // Only prefixes with as many segments as a mount can have.
            if let Some((at, _)) = path.bytes().enumerate().filter(|(_, b)| *b == b'/').nth(self.depth) {
                end = at;
            }
            while end > 0 {
                if let Some(route) = routes.get(&path[..end]) {
                    return Some(route);
                }
                end = path[..end].rfind('/').unwrap_or(0);
            }
        }
        self.root.as_ref()
    }

    /// Reads the path as the most generous module would.
    fn compare(&self, path: &str, route: Option<&Arc<Route>>) -> Result<(), BadPath> {
        let mut read = path.to_owned();
        for round in 0..=DECODINGS {
            let plain = simplify(&read)?;
            let other = self.find(&self.routes, &plain);
            if !same(other, route) {
                return Err(BadPath::Ambiguous);
            }
            if !self.folded.is_empty() {
                self.compare_folded(&plain, route)?;
            }
            if round == DECODINGS || !read.contains('%') {
                break;
            }
            read = match decode(&read, round == 0) {
                Some(read) => read,
                None if round == 0 => return Err(BadPath::Encoding),
                // A name such as `100%` that was encoded once.
                None => break,
            };
        }
        Ok(())
    }

    fn compare_folded(&self, path: &str, route: Option<&Arc<Route>>) -> Result<(), BadPath> {
        let other = self.find(&self.folded, &path.to_lowercase());
        let guarded = other.is_some_and(|other| other.mount.exposure != Exposure::Allowed);
        if guarded && !same(other, route) { Err(BadPath::Ambiguous) } else { Ok(()) }
    }
}

fn same(a: Option<&Arc<Route>>, b: Option<&Arc<Route>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        (None, None) => true,
        _ => false,
    }
}

/// Nothing in it can be read in two ways. This is what nearly all paths are.
fn is_plain(bytes: &[u8]) -> bool {
    let mut before = 0;
    for &byte in bytes {
        match byte {
            b'%' | b'\\' | b';' | 0..=0x20 | 0x7f.. => return false,
            b'/' | b'.' if before == b'/' => return false,
            _ => before = byte,
        }
    }
    true
}

/// One slash for many, no parameters of segments; refuses what is no name.
fn simplify(path: &str) -> Result<String, BadPath> {
    if path.chars().any(|c| c.is_control() || c == '\\') {
        return Err(BadPath::Character);
    }
    let mut plain = String::with_capacity(path.len());
    for segment in path.split('/') {
        let name = segment.split(';').next().unwrap_or_default();
        if matches!(name, "." | "..") {
            return Err(BadPath::Dots);
        }
        if !name.is_empty() {
            plain.push('/');
            plain.push_str(name);
        }
    }
    if plain.is_empty() {
        plain.push('/');
    }
    Ok(plain)
}

/// `None` when it is not encoded well. Otherwise a `%` that stands alone stays as it is, as lenient decoders do.
fn decode(path: &str, strict: bool) -> Option<String> {
    let digit = |byte: Option<&u8>| byte.and_then(|b| (*b as char).to_digit(16)).and_then(|d| u8::try_from(d).ok());
    let bytes = path.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] == b'%' {
            match (digit(bytes.get(at + 1)), digit(bytes.get(at + 2))) {
                (Some(high), Some(low)) => {
                    out.push(high << 4 | low);
                    at += 3;
                    continue;
                }
                _ if strict => return None,
                _ => {}
            }
        }
        out.push(bytes[at]);
        at += 1;
    }
    String::from_utf8(out).ok()
}

impl Route {
    /// The path that the module gets.
    ///
    /// # Errors
    /// When what is left would be read as a host.
    pub fn rest<'a>(&self, path: &'a str) -> Result<&'a str, BadPath> {
        if !self.mount.strip_prefix || self.mount.path == "/" {
            return Ok(path);
        }
        let rest = path.get(self.mount.path.len()..).unwrap_or_default();
        match rest {
            "" => Ok("/"),
            rest if rest.starts_with("//") => Err(BadPath::TwoSlashes),
            rest => Ok(rest),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::hub::{Module, State};

    fn mount(path: &str, exposure: Exposure) -> Mount {
        Mount { path: path.to_owned(), strip_prefix: path.ends_with("strip"), websocket: false, exposure }
    }

    fn upstream(routes: Vec<Mount>) -> Arc<Upstream> {
        Arc::new(Upstream {
            port: Some(1940),
            routes,
            state: State::Ready,
            reason: "Ready",
            message: String::new(),
            pid: None,
            restarts: 0,
            last_exit: None,
            keeps_socket: false,
            module: Module::default(),
        })
    }

    fn table(mounts: &[(&str, &str, Exposure)]) -> Table {
        let mut wish = Wish::default();
        for (service, path, exposure) in mounts {
            let name = Name::new(service).expect("a name");
            let mut routes = wish.upstreams.get(&name).map(|u| u.routes.clone()).unwrap_or_default();
            routes.push(mount(path, *exposure));
            wish.upstreams.insert(name, upstream(routes));
        }
        Table::of(&wish)
    }

    fn usual() -> Table {
        table(&[
            ("vault", "/vault/default", Exposure::Allowed),
            ("vault", "/vault/lab", Exposure::Allowed),
            ("app", "/app", Exposure::Allowed),
            ("admin", "/app/admin", Exposure::Loopback),
            ("inner", "/app/strip", Exposure::Allowed),
            ("keys", "/Keys", Exposure::AuthRequired),
            ("site", "/", Exposure::Allowed),
        ])
    }

    fn owner(table: &Table, path: &str) -> Result<String, BadPath> {
        Ok(table.resolve(path)?.map_or_else(|| "nobody".to_owned(), |route| route.target.service.to_string()))
    }

    #[test]
    fn the_longest_prefix_of_whole_segments_wins() {
        let table = usual();
        let cases = [
            ("/vault/default", "vault"),
            ("/vault/default/", "vault"),
            ("/vault/default/api/notes/1", "vault"),
            ("/vault/defaultx", "site"),
            ("/vault", "site"),
            ("/app", "app"),
            ("/app/", "app"),
            ("/apple", "site"),
            ("/app/admin", "admin"),
            ("/app/administrator", "app"),
            ("/app/admin/x/y/z", "admin"),
            ("/", "site"),
            ("/Keys/1", "keys"),
            ("/app/a.b/..c/d..", "app"),
            ("/.well-known/x", "site"),
        ];
        for (path, wanted) in cases {
            assert_eq!(owner(&table, path).as_deref(), Ok(wanted), "{path}");
        }
        let none = super::Table::of(&Wish::default());
        assert_eq!(owner(&none, "/x").as_deref(), Ok("nobody"));
    }

    #[test]
    fn what_another_reader_takes_for_another_place_is_refused() {
        let table = usual();
        let cases = [
            ("/app/../vault/default", BadPath::Dots),
            ("/app/%2e%2e/vault/default", BadPath::Dots),
            ("/app/%2E./x", BadPath::Dots),
            ("/app/x/..%2fadmin", BadPath::Dots),
            ("/app/%252e%252e/x", BadPath::Dots),
            ("/app/..;/admin", BadPath::Dots),
            ("/app/.", BadPath::Dots),
            ("/app%2fadmin", BadPath::Ambiguous),
            ("/app/%61dmin/keys", BadPath::Ambiguous),
            ("/app/%2561dmin", BadPath::Ambiguous),
            ("/app//admin", BadPath::Ambiguous),
            ("/app/;x=1/admin", BadPath::Ambiguous),
            ("/app/admin;x=1", BadPath::Ambiguous),
            ("/app/Admin", BadPath::Ambiguous),
            ("/APP/ADMIN/x", BadPath::Ambiguous),
            ("/app/%41dmin", BadPath::Ambiguous),
            ("/keys/1", BadPath::Ambiguous),
            ("//app/admin", BadPath::TwoSlashes),
            ("//evil.example/x", BadPath::TwoSlashes),
            ("/app\\admin", BadPath::Character),
            ("/app%5cadmin", BadPath::Character),
            ("/app/%5C..%5Cx", BadPath::Character),
            ("/app/%00", BadPath::Character),
            ("/app/%0d%0ax", BadPath::Character),
            ("/app/%c0%af", BadPath::Encoding),
            ("/app/%ff", BadPath::Encoding),
            ("/app/%", BadPath::Encoding),
            ("/app/%2", BadPath::Encoding),
            ("/app/%u002e", BadPath::Encoding),
            ("*", BadPath::NoPath),
            ("", BadPath::NoPath),
        ];
        for (path, wanted) in cases {
            assert_eq!(owner(&table, path), Err(wanted), "{path}");
        }
    }

    #[test]
    fn names_that_only_look_strange_are_passed_on() {
        let table = usual();
        let cases = [
            ("/vault/default/api/notes/by-path/a%2Fb", "vault"),
            ("/vault/default/api/notes/100%25", "vault"),
            ("/vault/default/caf%C3%A9", "vault"),
            ("/vault/default/café", "vault"),
            ("/vault/default//api", "vault"),
            ("/vault/default/a;v=1/b", "vault"),
            ("/vault/default/API", "vault"),
            ("/vault/default/%2E%2Ehidden", "vault"),
            ("/vault/default/...", "vault"),
            ("/Vault/default", "site"),
        ];
        for (path, wanted) in cases {
            assert_eq!(owner(&table, path).as_deref(), Ok(wanted), "{path}");
        }
    }

    #[test]
    fn a_stripped_mount_leaves_a_path() {
        let table = usual();
        let route = table.resolve("/app/strip/x").expect("fine").expect("a route");
        assert_eq!(route.rest("/app/strip/x/y"), Ok("/x/y"));
        assert_eq!(route.rest("/app/strip"), Ok("/"));
        assert_eq!(route.rest("/app/strip/"), Ok("/"));
        assert_eq!(route.rest("/app/strip//evil.example"), Err(BadPath::TwoSlashes));
        let kept = table.resolve("/app/admin/x").expect("fine").expect("a route");
        assert_eq!(kept.rest("/app/admin/x"), Ok("/app/admin/x"));
    }

    #[test]
    fn any_spelling_is_answered_and_no_protected_mount_is_reached_by_another() {
        let table = table(&[("open", "/a", Exposure::Allowed), ("shut", "/a/b", Exposure::Loopback)]);
        let pieces =
            ["/", "a", "b", "B", ".", "..", "%2e", "%2f", "%5c", "%61", "%62", "%252f", ";", "\\", "//", "é", "%"];
        let mut paths = vec![String::from("/a")];
        for _ in 0..3 {
            let longer = paths.iter().flat_map(|path| pieces.iter().map(move |piece| format!("{path}{piece}")));
            let longer: Vec<String> = longer.collect();
            paths.extend(longer);
        }
        for path in paths {
            if let Ok(Some(route)) = table.resolve(&path)
                && route.target.service.as_str() == "open"
            {
                let read = decode(&decode(&path, false).unwrap_or_default(), false).unwrap_or_default().to_lowercase();
                let read: Vec<&str> = read.split(['/', '\\']).filter(|s| !s.is_empty() && *s != ".").collect();
                let first = read.get(1).map(|name| name.split(';').next().unwrap_or_default());
                assert_ne!(first, Some("b"), "{path}");
                assert!(!read.contains(&".."), "{path}");
            }
        }
    }
}
