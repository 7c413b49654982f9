//! What is measured of an attempt.

use ::metrics::{Gauge, Histogram};

use crate::domain::{Outcome, Usage};
use crate::telemetry::{TokenMeter, metrics};

/// What is measured of an attempt; active until it is dropped.
pub(super) struct Meter {
    provider: &'static str,
    agent: String,
    active: Gauge,
    pub first_token: Histogram,
    pub rate: TokenMeter,
}

impl Meter {
    pub(super) fn new(provider: &'static str, agent: &str) -> Self {
        let active = metrics::streams_active(provider, agent);
        active.increment(1.0);
        Self {
            provider,
            agent: agent.to_owned(),
            active,
            first_token: metrics::time_to_first_token(provider),
            rate: metrics::token_meter(provider),
        }
    }

    pub(super) fn ended(&self, outcome: &Outcome, usage: Usage) {
        let outcome = match outcome {
            Outcome::Completed { .. } => "completed",
            Outcome::Stopped { .. } => "stopped",
            Outcome::Failed { .. } => "failed",
        };
        metrics::streams(self.provider, &self.agent, outcome).increment(1);
        metrics::tokens(self.provider, &self.agent, "input").increment(usage.input_tokens);
        metrics::tokens(self.provider, &self.agent, "output").increment(usage.output_tokens);
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.active.decrement(1.0);
    }
}
