//! The word for where a stage of a pipeline stands, which several vocabularies share.

use schemars::JsonSchema;
use serde::Serialize;

use crate::domain::Stage;

/// Where a stage of a pipeline stands.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(super) enum StageStatusJson {
    /// Its agents speak.
    Started,
    /// They all have spoken.
    Completed,
}

impl From<&Stage> for StageStatusJson {
    fn from(stage: &Stage) -> Self {
        if stage.said.is_some() { Self::Completed } else { Self::Started }
    }
}
