//! The types that are written as texts, as the API document describes them.

use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, Schema, SchemaFormat, Type};
use utoipa::openapi::{Object, RefOr};
use utoipa::{PartialSchema, ToSchema};

use super::blob::Integrity;
use super::id::{NAME_PATTERN, Name, ResourceId};
use super::time::Timestamp;
use super::unit::Millis;

/// The last digit before the padding holds a few bits only.
const INTEGRITY: &str =
    "^(sha256-[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=|sha384-[A-Za-z0-9+/]{64}|sha512-[A-Za-z0-9+/]{85}[AQgw]==)$";

fn text(description: &str) -> ObjectBuilder {
    Object::builder().schema_type(Type::String).description(Some(description))
}

macro_rules! described {
    ($type:ident, $schema:expr) => {
        impl PartialSchema for $type {
            fn schema() -> RefOr<Schema> {
                RefOr::T(Schema::Object($schema.build()))
            }
        }
        impl ToSchema for $type {}
    };
}

described!(
    Name,
    text("A DNS label: lower-case letters, digits and '-', 1 to 63 characters.").pattern(Some(NAME_PATTERN))
);
described!(
    ResourceId,
    text("Kind and name, such as Service/vault.")
        .pattern(Some("^[A-Za-z]+/[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"))
        .examples(["Service/vault"])
);
described!(
    Timestamp,
    text("RFC 3339, UTC, with milliseconds.").format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
);
described!(
    Millis,
    text("A duration such as 200ms, 5s, 10m, 24h or 7d.").pattern(Some("^[0-9]{1,11}(ms|s|m|h|d)$")).examples(["30s"])
);
described!(
    Integrity,
    text("A key in the form of Subresource Integrity: an algorithm (sha256, sha384, sha512), '-', and its hash in Base64.")
        .pattern(Some(INTEGRITY))
        .examples(["sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="])
);
