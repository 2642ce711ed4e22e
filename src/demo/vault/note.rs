//! A note.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// A note as it is kept; [`Note::shown`] leaves out what is asked for apart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Note {
    pub(super) id: String,
    pub(super) content: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) path: Option<String>,
    #[serde(default)]
    pub(super) tags: Vec<String>,
    #[serde(default)]
    pub(super) metadata: Map<String, Value>,
    pub(super) created_at: String,
    pub(super) updated_at: String,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub(super) attachments: Vec<Value>,
}

/// What is asked of a note in an answer.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub(super) content: bool,
    pub(super) attachments: bool,
    /// Only these keys of the metadata.
    pub(super) metadata: Option<Vec<String>>,
}

impl Note {
    pub(super) fn has_tag(&self, tag: &str) -> bool {
        self.tags.iter().any(|own| own == tag)
    }

    /// Whether someone who is bound to these tags may see it: it bears one of them, or one below it.
    pub(super) fn is_within(&self, tags: Option<&[String]>) -> bool {
        let below =
            |own: &str, root: &str| own.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        tags.is_none_or(|roots| self.tags.iter().any(|own| roots.iter().any(|root| below(own, root))))
    }

    pub(super) fn shown(&self, view: &View) -> Value {
        let mut note = json!(self);
        let Some(fields) = note.as_object_mut() else { return note };
        if !view.content {
            fields.shift_remove("content");
        }
        if view.attachments {
            fields.insert("attachments".to_owned(), json!(self.attachments));
        } else {
            fields.shift_remove("attachments");
        }
        if let (Some(keys), Some(metadata)) =
            (&view.metadata, fields.get_mut("metadata").and_then(Value::as_object_mut))
        {
            metadata.retain(|key, _| keys.contains(key));
        }
        note
    }
}

impl View {
    /// Everything that is not asked for apart.
    pub(super) const WHOLE: Self = Self { content: true, attachments: false, metadata: None };
}
