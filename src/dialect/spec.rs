//! What a vocabulary consists of, for its documents, the types of its frontends, and metrics.

use schemars::{JsonSchema, Schema, SchemaGenerator};

/// The JSON Schema of a type.
pub type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// An event that clients send.
#[derive(Debug, Clone, Copy)]
pub struct CommandSpec {
    /// Its name.
    pub name: &'static str,
    /// What it does, in a sentence.
    pub about: &'static str,
    /// Its one argument.
    pub payload: SchemaOf,
    /// What the acknowledgement has where it succeeded.
    pub ack: SchemaOf,
}

/// An event that clients hear.
#[derive(Debug, Clone, Copy)]
pub struct EventSpec {
    /// Its name; empty for SSE's event without one.
    pub name: &'static str,
    /// When it comes, in a sentence.
    pub about: &'static str,
    /// Its one argument.
    pub payload: SchemaOf,
}

impl CommandSpec {
    /// With a payload `P` and an acknowledgement `A`.
    pub(super) const fn new<P: JsonSchema, A: JsonSchema>(
        name: &'static str,
        about: &'static str,
    ) -> Self {
        Self { name, about, payload: schema::<P>, ack: schema::<A> }
    }
}

impl EventSpec {
    /// With a payload `P`.
    pub(super) const fn new<P: JsonSchema>(name: &'static str, about: &'static str) -> Self {
        Self { name, about, payload: schema::<P> }
    }
}

fn schema<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}
