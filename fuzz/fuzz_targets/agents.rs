//! The agents file. The input is its text.
#![no_main]

use std::collections::HashSet;

use libfuzzer_sys::fuzz_target;
use tokencast::config::{Agents, Config, Pipeline, PipelineStage, ProviderKind, Source};
use tokencast::domain::AgentId;

/// What no error may quote: it is no part of the file.
const SECRET: &str = "hunter2-hunter2-hunter2-hunter2-hunter2";
/// The most bytes of one error.
const ERROR_BYTES_MAX: usize = 1_000;

fuzz_target!(|text: &str| {
    let mut source = Source::from_environment([
        ("AGENTS_FILE", "/agents.toml"),
        ("JWT_SECRET", SECRET),
        ("ANTHROPIC_API_KEY", SECRET),
        ("OPENAI_API_KEY", SECRET),
    ]);
    let read = text.to_owned();
    source.files = Box::new(move |_| Ok(read.clone()));
    match Config::read(&source) {
        Ok(config) => assert_consistent(&config.agents),
        Err(problems) => {
            assert!((1..=text.len() + 1).contains(&problems.0.len()), "{problems}");
            for problem in &problems.0 {
                assert_eq!(problem.variable, "AGENTS_FILE", "{problem}");
                let line = problem.to_string();
                assert!(!line.contains(char::is_control), "{line:?}");
                assert!(line.len() <= ERROR_BYTES_MAX, "{line}");
                assert!(!line.contains(SECRET) || text.contains(SECRET), "{line}");
            }
        }
    }
});

fn assert_consistent(all: &Agents) {
    let Agents { default, agents, pipelines } = all;
    assert!(!agents.is_empty());
    let mut ids = HashSet::new();
    let every = agents.iter().map(|agent| &agent.id).chain(pipelines.iter().map(|p| &p.id));
    assert!(every.clone().all(|id| ids.insert(id.clone())), "an id is of one");
    assert!(ids.contains(default), "{default} is one of them");
    for agent in agents {
        assert!(!agent.model.is_empty());
        assert_eq!(agent.base_url.is_none(), agent.provider == ProviderKind::Scripted);
        assert!(agent.temperature.is_none_or(|t| (0.0..=2.0).contains(&t)));
        assert!(agent.max_tokens != Some(0) && !agent.timeout.is_zero());
        assert!((0.0..=1e6).contains(&agent.tokens_per_second));
        assert!((1..=1_000_000).contains(&agent.tokens));
        assert_ends(all, &agent.id);
    }
    for pipeline in pipelines {
        assert!((1..=Pipeline::STAGES_MAX).contains(&pipeline.stages.len()));
        let (last, before) = pipeline.stages.split_last().expect("there is one");
        assert!(!last.gate && last.agents.len() == 1);
        assert!(before.iter().all(|stage| !stage.gate || stage.agents.len() == 1));
        let mut names = HashSet::new();
        for stage in &pipeline.stages {
            assert!(names.insert(&stage.name), "{} twice", stage.name);
            assert!((1..=PipelineStage::NAME_CHARS_MAX).contains(&stage.name.chars().count()));
            assert!((1..=PipelineStage::AGENTS_MAX).contains(&stage.agents.len()));
            assert!(stage.agents.iter().all(|id| all.get(id).is_some()), "{:?}", stage.agents);
        }
    }
}

/// Following fallbacks comes to an end.
fn assert_ends(all: &Agents, first: &AgentId) {
    let mut next = Some(first);
    for _ in 0..=all.agents.len() {
        let Some(id) = next else { return };
        next = all.get(id).expect("a fallback is an agent").fallback.as_ref();
    }
    panic!("the fallbacks of {first} go round");
}
