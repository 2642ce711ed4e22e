//! What all services of a tree declare, as lines: by service, in the order in which each declares it.

use super::{Desired, Resource};
use crate::kinds::service::accepts::Accepts;
use crate::kinds::service::declares::{ActionSpec, Declarations, TemplateSpec, VAULT_TRIGGER, declared};
use crate::model::catalog_output::{ActionLine, CatalogLine, CredentialLine, EventLine, TemplateLine};
use crate::model::id::Name;

impl Desired {
    /// Events, actions, credentials and templates of every service that is in force.
    pub fn catalog(&self) -> Vec<CatalogLine> {
        self.resources.values().flat_map(lines).collect()
    }
}

/// Who declares, and where.
struct Declarer<'a> {
    resource: &'a Resource,
    name: &'a Name,
    module: String,
}

impl Declarer<'_> {
    /// Where it stands, by the field's name and its index there.
    fn place(&self, field: &str, index: usize) -> String {
        let at = match &self.resource.module {
            Some(module) => module.value_at(&format!("/{field}/{index}/key")),
            None => self.resource.document.value_at(&format!("/spec/{field}/{index}/key")),
        };
        at.to_string()
    }
}

fn lines(resource: &Resource) -> Vec<CatalogLine> {
    let Some(spec) = resource.spec.as_service() else { return Vec::new() };
    let name = &resource.id.name;
    let declared = declared(name.as_str(), spec, resource.module.as_deref());
    let Declarations { module, events, actions, credentials, templates } = declared;
    let who = &Declarer { resource, name, module: module.to_owned() };
    let keys = |schema: &Option<Accepts>| {
        schema.iter().flat_map(|schema| schema.keys()).map(str::to_owned).collect::<Vec<String>>()
    };
    let whole = |schema: &Option<Accepts>| schema.as_ref().map(|schema| schema.schema().clone());
    let events = events.iter().enumerate().map(|(index, event)| {
        CatalogLine::EventDeclared(EventLine {
            service: who.name.clone(),
            module: who.module.clone(),
            key: event.key.clone(),
            title: event.title().to_owned(),
            filter: keys(&event.filter_schema),
            filter_schema: whole(&event.filter_schema),
            source: who.place("events", index),
        })
    });
    let actions = actions.iter().enumerate().map(|(index, action)| {
        CatalogLine::ActionDeclared(ActionLine {
            service: who.name.clone(),
            module: who.module.clone(),
            key: action.key.clone(),
            title: action.title().to_owned(),
            connectable: connectable(action),
            scope: action.scope.clone(),
            endpoint: action.endpoint.clone(),
            params: keys(&action.input_schema),
            input_schema: whole(&action.input_schema),
            provision: action.provision.clone(),
            source: who.place("actions", index),
        })
    });
    let credentials = credentials.iter().enumerate().map(|(index, credential)| {
        CatalogLine::CredentialDeclared(CredentialLine {
            service: who.name.clone(),
            module: who.module.clone(),
            key: credential.key.clone(),
            title: credential.title().to_owned(),
            description: credential.description.clone(),
            scope: credential.scope.clone(),
            endpoint: credential.endpoint.clone(),
            source: who.place("credentials", index),
        })
    });
    let templates = templates.iter().enumerate().map(|(index, template)| template_line(who, index, template));
    events.chain(actions).chain(credentials).chain(templates).collect()
}

fn connectable(action: &ActionSpec) -> bool {
    action.endpoint.is_some() && action.scope.is_some() && action.provision_type() == VAULT_TRIGGER
}

fn template_line(who: &Declarer<'_>, index: usize, template: &TemplateSpec) -> CatalogLine {
    CatalogLine::TemplateDeclared(TemplateLine {
        service: who.name.clone(),
        module: who.module.clone(),
        key: template.key.clone(),
        title: template.title.clone(),
        // A type of ours with names as keys is always JSON.
        template: serde_json::to_value(template).unwrap_or_default(),
        source: who.place("connectionTemplates", index),
    })
}
