//! The answers that many calls have in common, for the document.

use utoipa::IntoResponses;

use crate::hub::refusal::ErrorBody;

/// What every call may answer.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "described, never made: handlers answer with refusals")]
pub(super) enum Always {
    /// A parameter that is not known, or cannot be read.
    #[response(status = 400)]
    BadRequest(ErrorBody),
    /// No token, or one that is not accepted. `WWW-Authenticate` says so too.
    #[response(status = 401)]
    Unauthorized(ErrorBody),
    /// The token has not the scope that is needed, which the answer names.
    #[response(status = 403)]
    Forbidden(ErrorBody),
    /// Too many requests without a good token. `Retry-After` says how long to wait.
    #[response(status = 429)]
    TooMany(ErrorBody),
    /// It failed on this side.
    #[response(status = 500)]
    Failed(ErrorBody),
    /// Too much at once, or the daemon is about to end. `Retry-After` says how long to wait.
    #[response(status = 503)]
    Unavailable(ErrorBody),
}

/// What a call with a body in JSON may answer.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "described, never made: handlers answer with refusals")]
pub(super) enum WithBody {
    /// The body did not come in time.
    #[response(status = 408)]
    TooSlow(ErrorBody),
    /// The body is too large.
    #[response(status = 413)]
    TooLarge(ErrorBody),
    /// The body is of another type.
    #[response(status = 415)]
    Type(ErrorBody),
    /// The body is JSON, and says something else.
    #[response(status = 422)]
    Unprocessable(ErrorBody),
}

/// What a call about something by name may answer.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "described, never made: handlers answer with refusals")]
pub(super) enum ByName {
    /// There is no such thing.
    #[response(status = 404)]
    NotFound(ErrorBody),
}

/// What a call that asks the engine may answer.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "described, never made: handlers answer with refusals")]
pub(super) enum ByEngine {
    /// A safety guard says no.
    #[response(status = 409)]
    Refused(ErrorBody),
}
