//! What is counted of running generations.

use async_trait::async_trait;
use bytes::Bytes;
use fred::types::Value;

use super::super::{AdapterError, Tallies, Tally};
use super::log::{ms, number};
use super::scripts::call;
use super::{Redis, tally_key, unavailable};
use crate::domain::{GenerationId, SessionId};

#[async_trait]
impl Tallies for Redis {
    async fn tally(
        &self,
        session: &SessionId,
        generation: GenerationId,
        tally: Tally,
    ) -> Result<(), AdapterError> {
        let shared = &self.shared;
        let counted: Result<Value, _> = call(
            &shared.commands,
            &shared.scripts.tally,
            vec![tally_key(session, generation)],
            vec![
                number(ms(shared.options.log_ttl)),
                number(tally.tokens),
                number(u64::from(tally.errors)),
                tally.first_token_ms.map_or_else(|| "".into(), number),
            ],
        )
        .await;
        counted.map(drop).map_err(|source| unavailable("tally", source))
    }

    async fn add_sent(
        &self,
        session: &SessionId,
        generation: GenerationId,
        bytes: u64,
    ) -> Result<(), AdapterError> {
        let shared = &self.shared;
        let added: Result<Value, _> = call(
            &shared.commands,
            &shared.scripts.add_sent,
            vec![tally_key(session, generation)],
            vec![number(ms(shared.options.log_ttl)), number(bytes)],
        )
        .await;
        added.map(drop).map_err(|source| unavailable("add to what was sent", source))
    }

    async fn tallied(
        &self,
        session: &SessionId,
        generation: GenerationId,
    ) -> Result<Option<Tally>, AdapterError> {
        let shared = &self.shared;
        let key = vec![tally_key(session, generation)];
        let found: Vec<Option<Bytes>> =
            call(&shared.commands, &shared.scripts.tallied, key, Vec::new())
                .await
                .map_err(|source| unavailable("read tally", source))?;
        let [tokens, errors, first_token_ms, sent_bytes] = &found[..] else {
            return Err(AdapterError::Malformed {
                doing: "read tally",
                what: format!("{} fields", found.len()),
            });
        };
        let found = [tokens, errors, first_token_ms, sent_bytes].map(|field| {
            let read = std::str::from_utf8(field.as_deref()?).ok().and_then(|n| n.parse().ok());
            if read.is_none() {
                shared.garbage.found("tally");
            }
            read
        });
        let [tokens, errors, first_token_ms, sent_bytes]: [Option<u64>; 4] = found;
        Ok(found.iter().any(Option::is_some).then(|| Tally {
            tokens: tokens.unwrap_or(0),
            first_token_ms,
            errors: errors.and_then(|errors| u32::try_from(errors).ok()).unwrap_or(0),
            sent_bytes: sent_bytes.unwrap_or(0),
        }))
    }
}
