//! What a kind wants of one resource, for whatever actions the kind has. Pure.

use super::standing::Standing;
use crate::model::condition::Reason;
use crate::model::event::Cause;
use crate::model::problem::{Code, Problem};

/// A step to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted<A> {
    pub action: A,
    pub reason: Reason,
    pub cause: Cause,
    pub detail: String,
    /// JSON pointer of what asks for it.
    pub pointer: String,
}

/// What the policy of a kind says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intent<A> {
    pub steps: Vec<Wanted<A>>,
    /// The steps must wait for this (they are shown by `plan`, and not done yet).
    pub gate: Option<String>,
    pub standing: Standing,
    /// A mistake to show, with the pointer it belongs to when it has no position of its own.
    pub problem: Option<Trouble>,
}

/// A problem found while looking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    Placed(Box<Problem>),
    At { pointer: &'static str, code: Code, message: String, hint: String },
}

impl<A> Intent<A> {
    pub fn rest(standing: Standing) -> Self {
        Self { steps: Vec::new(), gate: None, standing, problem: None }
    }

    pub fn act(standing: Standing, step: Wanted<A>) -> Self {
        Self { steps: vec![step], gate: None, standing, problem: None }
    }
}
