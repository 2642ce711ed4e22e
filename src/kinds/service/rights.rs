//! From names to numbers: as whom a service runs, and whether this machine can keep the limits that it asks for. What it cannot is a
//! problem with a place, before anything is started.

use super::inputs::Rights;
use super::spec::{Identity, ServiceSpec};
use crate::document::Document;
use crate::document::near::listed;
use crate::model::problem::{Code, Problem};
use crate::ports::Look;
use crate::ports::keeper::Confinement;
use crate::ports::machine::{Account, Powers};

/// What to do where there is no cgroup to be had.
const HINT: &str = "where systemd runs, start trueup by a unit with Delegate=yes; otherwise boot with cgroup v2 alone; or take this \
                    out; what runs keeps running until then";

/// Looks everything up. The first thing that cannot be is the problem.
///
/// # Errors
/// That problem.
pub(super) fn rights(look: &Look<'_>, document: &Document, spec: &ServiceSpec) -> Result<Rights, Problem> {
    let resources = &spec.resources;
    let ids = spec.user.is_some() || spec.group.is_some() || spec.supplementary_groups.is_some();
    if !ids && *resources == Default::default() {
        return Ok(Rights::default());
    }
    let asked = Asked { look, document, spec, powers: look.machine().powers() };
    asked.ceilings()?;
    asked.limits()?;
    let mut rights = if ids { asked.identity()? } else { Rights::default() };
    rights.confinement.nice = resources.nice;
    rights.confinement.umask = resources.umask.as_ref().map(super::spec::Umask::bits);
    rights.confinement.rlimits = resources.rlimits.given().map(|(limit, pair)| (limit, pair.bounds())).collect();
    Ok(rights)
}

struct Asked<'a> {
    look: &'a Look<'a>,
    document: &'a Document,
    spec: &'a ServiceSpec,
    powers: Powers,
}

impl Asked<'_> {
    fn at(&self, code: Code, pointer: &str, message: String) -> Problem {
        Problem::error(code, self.document.value_at(pointer), message)
    }

    fn identity(&self) -> Result<Rights, Problem> {
        let spec = self.spec;
        let account = match &spec.user {
            Some(user) => self.account(user)?,
            None => None,
        };
        let uid = match (&account, &spec.user) {
            (Some(account), _) => Some(account.uid),
            (None, user) => user.as_ref().and_then(|user| user.0.parse().ok()),
        };
        let own = account.as_ref().map(|account| account.gid);
        let gid = match &spec.group {
            Some(group) => Some(self.group(group, "/spec/group")?),
            None => own,
        };
        let groups = match &spec.supplementary_groups {
            Some(groups) => {
                let numbered =
                    groups.iter().enumerate().map(|(n, g)| self.group(g, &format!("/spec/supplementaryGroups/{n}")));
                Some(numbered.collect::<Result<Vec<_>, _>>()?)
            }
            None => match (&account, uid.or(gid)) {
                // As after a login: the primary group is one of them.
                (Some(account), _) => {
                    let mut groups = account.groups.clone();
                    groups.extend(own.filter(|gid| !account.groups.contains(gid)));
                    Some(groups)
                }
                // It has none to take on, and must not keep ours.
                (None, Some(_)) => Some(gid.into_iter().collect()),
                (None, None) => None,
            },
        };
        let Powers { uid: our_uid, gid: our_gid, .. } = self.powers;
        if our_uid != 0 {
            let others = [
                ("/spec/user", uid.is_some_and(|uid| uid != our_uid)),
                ("/spec/group", gid.is_some_and(|gid| gid != our_gid)),
                ("/spec/supplementaryGroups", spec.supplementary_groups.is_some()),
            ];
            if let Some((pointer, _)) = others.into_iter().find(|(_, other)| *other) {
                // The group may be the user's own, and not stand there.
                let pointer = if spec.group.is_none() && pointer == "/spec/group" { "/spec/user" } else { pointer };
                let message =
                    format!("only root can run a program as another user or group; trueup runs as user {our_uid}");
                return Err(self.at(Code::NeedsRights, pointer, message).hint("run trueup as root, or take this out"));
            }
            // It is as it should be, and asking for it again would be refused.
            return Ok(Rights { account, ..Rights::default() });
        }
        Ok(Rights { account, confinement: Confinement { uid, gid, groups, ..Confinement::default() } })
    }

    fn account(&self, user: &Identity) -> Result<Option<Account>, Problem> {
        let at = |message: String| self.at(Code::UnknownUser, "/spec/user", message);
        let found = self.look.machine().account(&user.0);
        let found = found.map_err(|why| at(format!("user '{}' cannot be looked up: {why}", user.0)))?;
        let is_number = user.0.parse::<u32>().is_ok();
        match found {
            None if !is_number => Err(at(format!("user '{}' does not exist on this machine", user.0)).hint(format!(
                "create it (useradd --system {}), or change `user`; what runs keeps running until then",
                user.0
            ))),
            None if self.spec.group.is_none() => {
                let message = format!("user {} has no name on this machine, so its group is not known", user.0);
                Err(at(message).hint("add `group:`, a name or a number"))
            }
            found => Ok(found),
        }
    }

    fn group(&self, group: &Identity, pointer: &str) -> Result<u32, Problem> {
        let at = |message: String| self.at(Code::UnknownUser, pointer, message);
        let found = self.look.machine().group(&group.0);
        let found = found.map_err(|why| at(format!("group '{}' cannot be looked up: {why}", group.0)))?;
        found.ok_or_else(|| {
            at(format!("group '{}' does not exist on this machine", group.0)).hint(format!(
                "create it (groupadd --system {}), or change this; what runs keeps running until then",
                group.0
            ))
        })
    }

    /// Memory, cores and processes of the whole need a cgroup.
    fn ceilings(&self) -> Result<(), Problem> {
        let ceilings = self.spec.resources.ceilings();
        if let (true, Err(why)) = (ceilings.cgroup, &self.powers.controllers) {
            let at = self.document.key_at("/spec/resources/cgroup");
            let message = format!("trueup cannot make cgroups (v2) here: {why}");
            return Err(Problem::error(Code::NoController, at, message).hint(HINT));
        }
        for name in ceilings.controllers() {
            let here = match &self.powers.controllers {
                Err(why) => format!("no cgroup ({why})"),
                Ok(all) if all.iter().any(|c| c == name) => continue,
                Ok(all) if all.is_empty() => "a cgroup without controllers".to_owned(),
                Ok(all) => format!("a cgroup with {} only", listed(all.iter().map(String::as_str), "and", 8)),
            };
            let message = format!("`{name}` needs a cgroup (v2) with the {name} controller; here: {here}");
            let at = self.document.key_at(&format!("/spec/resources/{name}"));
            return Err(Problem::error(Code::NoController, at, message).hint(HINT));
        }
        Ok(())
    }

    /// Some limits only root may raise.
    fn limits(&self) -> Result<(), Problem> {
        if self.powers.uid == 0 {
            return Ok(());
        }
        let ours = self.powers.uid;
        if let Some(nice) = self.spec.resources.nice.filter(|nice| *nice < 0) {
            let message =
                format!("only root can serve a program before others (nice {nice}); trueup runs as user {ours}");
            let problem = self.at(Code::NeedsRights, "/spec/resources/nice", message);
            return Err(problem.hint("run trueup as root, or write a number from 0 to 19"));
        }
        for (limit, pair) in self.spec.resources.rlimits.given() {
            let Some(Some(highest)) = self.powers.hard.get(&limit) else { continue };
            if pair.bounds().hard.is_none_or(|wanted| wanted > *highest) {
                let name = limit.as_str();
                let message = format!("only root can raise `{name}` beyond {highest}, the hard limit of trueup itself");
                let pointer = format!("/spec/resources/rlimits/{name}");
                let problem = self.at(Code::NeedsRights, &pointer, message);
                return Err(
                    problem.hint(format!("write at most {highest}, or raise the limit that trueup is started with"))
                );
            }
        }
        Ok(())
    }
}
