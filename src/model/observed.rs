//! What was seen of one resource. "We could not look" is not "it is not there".

/// Absent, present or unknown. `Unknown` never leads to a create or a delete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observed<T> {
    /// Certainly not there.
    Absent,
    /// There, in this state.
    Present(T),
    /// We could not look, or an effect was begun and never finished; the reason is for people.
    Unknown(String),
}
