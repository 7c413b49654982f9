//! Who answers: the agents file, and what there is without it.

use super::super::{Agents, PipelineStage, ProviderKind};
use super::*;
use crate::domain::OnTakeover;

fn agents(toml: &str, environment: &[(&str, &str)]) -> Result<Config, Problems> {
    let mut source = Source::from_environment(environment.iter().copied());
    source.environment.insert("AGENTS_FILE".to_owned(), "/agents.toml".to_owned());
    source.files = files(&[("/agents.toml", toml)]);
    Config::read(&source)
}

/// The lines of what is wrong with a file, without the variable's name.
fn wrong(toml: &str) -> Vec<String> {
    match agents(toml, &[]) {
        Ok(_) => Vec::new(),
        Err(Problems(problems)) => problems
            .iter()
            .map(|problem| {
                let line = problem.to_string();
                assert!(!line.contains('\n'), "{line}");
                line.strip_prefix("AGENTS_FILE: ").expect("it is of the file").to_owned()
            })
            .collect(),
    }
}

/// Scripted agents of these ids.
fn scripted(ids: &[&str]) -> String {
    ids.iter().map(|id| format!("[[agent]]\nid = \"{id}\"\nprovider = \"scripted\"\n")).collect()
}

/// A stage of the last pipeline.
fn stage(name: &str, agents: &[&str], more: &str) -> String {
    format!("[[pipeline.stage]]\nname = \"{name}\"\nagents = {agents:?}\n{more}\n")
}

#[test]
fn without_a_file_the_provider_whose_key_is_set_answers() {
    let agent = |environment: &[(&str, &str)]| config(environment).agents.agents[0].clone();
    let anthropic = agent(&[("ANTHROPIC_API_KEY", "k"), ("OPENAI_API_KEY", "k")]);
    assert_eq!((anthropic.id.as_str(), anthropic.provider), ("assistant", ProviderKind::Anthropic));
    assert_eq!(anthropic.model, "claude-sonnet-4-5");
    assert_eq!(anthropic.base_url.as_deref(), Some("https://api.anthropic.com"));
    let key = ("ANTHROPIC_API_KEY", "k");
    let other = agent(&[key, ("ANTHROPIC_BASE_URL", "http://h/"), ("ANTHROPIC_MODEL", "m")]);
    assert_eq!((other.base_url.as_deref(), other.model.as_str()), (Some("http://h"), "m"));
    let lines = problems(&[key, ("ANTHROPIC_BASE_URL", "http://h")]);
    assert!(lines.len() == 1 && lines[0].starts_with("ANTHROPIC_MODEL: "), "{lines:?}");
    assert_eq!(agent(&[("ANTHROPIC_MODEL", "m")]).provider, ProviderKind::Scripted, "no key");
    let own = agent(&[("OPENAI_API_KEY", "k")]);
    assert_eq!((own.provider, own.model.as_str()), (ProviderKind::OpenAi, "gpt-4.1"));
    assert_eq!(own.base_url.as_deref(), Some("https://api.openai.com/v1"));
    let local = agent(&[("OPENAI_BASE_URL", "http://ollama:11434/v1/"), ("OPENAI_MODEL", "llama")]);
    assert_eq!((local.provider, local.model.as_str()), (ProviderKind::OpenAi, "llama"));
    assert_eq!(local.base_url.as_deref(), Some("http://ollama:11434/v1"));
    let lines = problems(&[("OPENAI_BASE_URL", "http://ollama:11434/v1")]);
    assert!(lines.len() == 1 && lines[0].starts_with("OPENAI_MODEL: "), "{lines:?}");
    let model_only = agent(&[("OPENAI_MODEL", "llama")]);
    assert_eq!(model_only.provider, ProviderKind::Scripted);
}

#[test]
fn the_agents_file_is_read() {
    let toml = r#"
        default = "b"
        [[agent]]
        id = "a"
        provider = "scripted"
        tokens_per_second = 0
        tokens = 7
        [[agent]]
        id = "b"
        name = "Bee"
        provider = "openai"
        model = "m"
        base_url = "http://h/v1/"
        system = "You are B"
        temperature = 1
        max_tokens = 9
        on_takeover = "restart"
        timeout = "5s"
    "#;
    let agents = agents(toml, &[]).unwrap().agents;
    assert_eq!(agents.default.as_str(), "b");
    let [a, b] = &agents.agents[..] else { panic!("{agents:?}") };
    assert_eq!((a.name.as_str(), a.model.as_str(), a.tokens), ("a", "scripted", 7));
    assert_eq!((a.tokens_per_second, a.timeout), (0.0, Duration::from_secs(30)));
    assert_eq!((b.name.as_str(), b.base_url.as_deref()), ("Bee", Some("http://h/v1")));
    assert_eq!((b.temperature, b.max_tokens), (Some(1.0), Some(9)));
    assert_eq!((b.on_takeover, b.timeout), (OnTakeover::Restart, Duration::from_secs(5)));
    assert_eq!(agents.get(&b.id), Some(b));
}

/// [`wrong`] asserts the rest: that each is one line.
#[test]
fn what_is_said_of_the_agents_file_is_fit_for_a_terminal() {
    let scripted = &scripted(&["a"]);
    let (odd, long) = ("x\\n\\u001b[31m", "x".repeat(10_000));
    for text in [odd, &*long] {
        for toml in [
            format!("\"{text}\" = 1\n{scripted}"),
            format!("{scripted}\"{text}\" = 1"),
            format!("default = \"{text}\"\n{scripted}"),
            format!("[[agent]]\nid = \"{text}\"\nprovider = \"{text}\""),
            format!("[[agent]]\nid = \"a\"\nprovider = \"{text}\""),
            format!("{scripted}tokens = \"{text}\""),
            format!("{scripted}[[pipeline]]\nid = \"p\"\n{}", stage(&long, &["a"], "")),
        ] {
            let lines = wrong(&toml);
            assert!(!lines.is_empty(), "accepted: {toml}");
            for line in lines {
                assert!(!line.contains(char::is_control) && line.len() < 600, "{line:?}");
            }
        }
    }
}

#[test]
fn what_is_wrong_in_the_agents_file_is_named() {
    let scripted = &scripted(&["a"]);
    for (toml, expected) in [
        (String::new(), "agent: there is none"),
        ("[[agent]\nid = 1".to_owned(), "line 1"),
        (format!("{scripted}colour = \"red\""), "agent a: unknown field `colour`"),
        (format!("models = 1\n{scripted}"), "models: unknown key"),
        (format!("default = \"x\"\n{scripted}"), "default: there is no agent \"x\""),
        (format!("{scripted}{scripted}"), "agent a: there are two"),
        ("[[agent]]\nprovider = \"scripted\"".to_owned(), "agent #1: missing field `id`"),
        ("[[agent]]\nid = \"a b\"\nprovider = \"scripted\"".to_owned(), "agent a b: id must be"),
        ("[[agent]]\nid = \"a\"\nprovider = \"cohere\"".to_owned(), "\"cohere\" is unknown"),
        (
            "[[agent]]\nid = \"a\"\nprovider = \"anthropic\"".to_owned(),
            "agent a: ANTHROPIC_API_KEY is not set",
        ),
        (
            "[[agent]]\nid = \"a\"\nprovider = \"openai-responses\"".to_owned(),
            "agent a: OPENAI_API_KEY is not set",
        ),
        (
            "[[agent]]\nid = \"a\"\nprovider = \"openai\"".to_owned(),
            "agent a: OPENAI_API_KEY is not set",
        ),
        (
            "[[agent]]\nid = \"a\"\nprovider = \"anthropic\"\nbase_url = \"http://h\"".to_owned(),
            "agent a: no model: set it, or ANTHROPIC_MODEL",
        ),
        (
            "[[agent]]\nid = \"a\"\nprovider = \"openai\"\nbase_url = \"http://h\"".to_owned(),
            "agent a: no model",
        ),
        (format!("{scripted}fallback = 1"), "agent a: "),
        (format!("{scripted}temperature = 3.0"), "agent a: temperature: expected 0 to 2"),
        (format!("{scripted}temperature = nan"), "agent a: temperature: expected 0 to 2"),
        (format!("{scripted}tokens_per_second = -1"), "tokens_per_second: expected"),
        (format!("{scripted}max_tokens = 0"), "max_tokens: expected"),
        (format!("{scripted}max_tokens = \"many\""), "agent a: "),
        (format!("{scripted}timeout = \"soon\""), "timeout: expected"),
        (format!("{scripted}on_takeover = \"panic\""), "on_takeover: expected"),
    ] {
        let Err(Problems(problems)) = agents(&toml, &[]) else { panic!("accepted: {toml}") };
        let line = problems[0].to_string();
        assert!(line.starts_with("AGENTS_FILE: ") && line.contains(expected), "{line}\nof\n{toml}");
        assert!(!line.contains('\n'), "{line}");
    }
    let two = format!("{scripted}colour = 1\n[[agent]]\nid = \"b\"\nprovider = \"cohere\"");
    assert_eq!(agents(&two, &[]).unwrap_err().0.len(), 2, "all at once");
}

#[test]
fn a_missing_agents_file_is_one_problem() {
    let lines = problems(&[("AGENTS_FILE", "/none"), ("OPENAI_BASE_URL", "http://h/v1")]);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].starts_with("AGENTS_FILE: \"/none\" cannot be read"), "{lines:?}");
}

#[test]
fn every_provider_is_asked_where_its_variables_say() {
    let agent = |provider| format!("[[agent]]\nid = \"a\"\nprovider = \"{provider}\"\n");
    let keys = [("ANTHROPIC_API_KEY", "k"), ("OPENAI_API_KEY", "k"), ("OPENAI_MODEL", "o")];
    for (provider, kind, base_url, model) in [
        ("anthropic", ProviderKind::Anthropic, "https://api.anthropic.com", "claude-sonnet-4-5"),
        ("openai", ProviderKind::OpenAi, "https://api.openai.com/v1", "o"),
        ("openai-responses", ProviderKind::OpenAiResponses, "https://api.openai.com/v1", "o"),
    ] {
        let config = agents(&agent(provider), &keys).unwrap();
        let read = &config.agents.agents[0];
        assert_eq!((read.provider, read.model.as_str()), (kind, model));
        assert_eq!(read.base_url.as_deref(), Some(base_url));
        assert_eq!(ProviderKind::named(kind.as_str()), Some(kind));
    }
}

#[test]
fn a_small_pipeline_of_scripted_agents_stands_by_without_a_file_only() {
    for environment in [&[][..], &[("OPENAI_API_KEY", "k")], &[("ANTHROPIC_API_KEY", "k")]] {
        let Agents { default, agents, pipelines } = config(environment).agents;
        assert_eq!(default.as_str(), "assistant");
        let [panel] = &pipelines[..] else { panic!("{pipelines:?}") };
        assert_eq!(panel.id.as_str(), "demo-panel");
        let members: Vec<_> = panel.stages.iter().flat_map(|stage| &stage.agents).collect();
        assert_eq!(members.len() + 1, agents.len());
        for member in members {
            let member = agents.iter().find(|agent| agent.id == *member).unwrap();
            assert_eq!(member.provider, ProviderKind::Scripted);
        }
        assert!(panel.stages.iter().any(|stage| stage.gate));
        assert!(panel.stages.iter().any(|stage| stage.agents.len() > 1));
        assert_eq!(
            panel.stages.last().map(|stage| (stage.gate, stage.agents.len())),
            Some((false, 1))
        );
    }
    assert!(agents(&scripted(&["a"]), &[]).unwrap().agents.pipelines.is_empty());
}

#[test]
fn pipelines_and_fallbacks_are_read() {
    let toml = [
        "default = \"deep-dive\"\n".to_owned(),
        scripted(&["facilitator", "a", "b"]),
        format!("{}fallback = \"a\"\n", scripted(&["friend"])),
        "[[pipeline]]\nid = \"deep-dive\"\nname = \"Deep dive\"\n".to_owned(),
        stage("facilitator", &["facilitator"], "gate = true"),
        stage("psychologists", &["a", "b"], ""),
        stage("wise-friend", &["friend"], "gate = false"),
        "[[pipeline]]\nid = \"short\"\n".to_owned(),
        stage("only", &["a"], ""),
    ]
    .concat();
    let Agents { default, agents, pipelines } = agents(&toml, &[]).unwrap().agents;
    assert_eq!(default.as_str(), "deep-dive");
    let fallbacks: Vec<_> = agents.iter().filter_map(|agent| agent.fallback.as_ref()).collect();
    assert_eq!(fallbacks, [&agents[1].id]);
    let [deep, short] = &pipelines[..] else { panic!("{pipelines:?}") };
    assert_eq!((deep.name.as_str(), short.name.as_str()), ("Deep dive", "short"));
    let shapes: Vec<_> = (deep.stages.iter())
        .map(|PipelineStage { name, agents, gate }| (name.as_str(), agents.len(), *gate))
        .collect();
    assert_eq!(
        shapes,
        [("facilitator", 1, true), ("psychologists", 2, false), ("wise-friend", 1, false)]
    );
}

#[test]
fn what_is_wrong_with_a_pipeline_is_named() {
    let all = scripted(&["a", "b"]);
    let long = "n".repeat(65);
    let pipeline = "[[pipeline]]\nid = \"p\"\n";
    let many = |count| (0..count).map(|i| stage(&format!("s{i}"), &["a"], "")).collect::<String>();
    for (stages, expected) in [
        (String::new(), "stage: expected 1 to 16 of [[pipeline.stage]]"),
        ("stage = 1".to_owned(), "invalid type: integer `1`, expected a sequence"),
        ("colour = 1".to_owned(), "unknown field `colour`, expected one of `id`, `name`, `stage`"),
        (many(17), "stage: expected 1 to 16 of [[pipeline.stage]]"),
        (stage("", &["a"], ""), "stage \"\": name: expected 1 to 64 characters"),
        (stage(" ", &["a"], ""), "stage \" \": name: expected 1 to 64 characters"),
        (stage(&long, &["a"], ""), "name: expected 1 to 64 characters"),
        (
            stage("s", &["a"], "") + &stage("s", &["b"], ""),
            "stage \"s\": name: there are two of this name",
        ),
        (
            stage("s", &[], "") + &stage("t", &["b"], ""),
            "stage \"s\": agents: expected 1 to 8 agents",
        ),
        (
            stage("s", &["a"; 9], "") + &stage("t", &["b"], ""),
            "stage \"s\": agents: expected 1 to 8 agents",
        ),
        (
            stage("s", &["a", "b"], "gate = true") + &stage("t", &["b"], ""),
            "stage \"s\": agents: expected one agent, since the stage is a gate",
        ),
        (
            stage("s", &["a", "b"], ""),
            "stage \"s\": agents: expected one agent, since the last stage is heard",
        ),
        (
            stage("s", &["a"], "gate = true"),
            "stage \"s\": gate: expected false in the last stage, after which nothing comes",
        ),
        (
            stage("s", &["a"], "gate = 1"),
            "stage \"s\": invalid type: integer `1`, expected a boolean",
        ),
        (
            stage("s", &["a"], "colour = 1"),
            "stage \"s\": unknown field `colour`, expected one of `name`, `agents`, `gate`",
        ),
        (stage("\\u001b[2J", &["a"], ""), "name: expected 1 to 64 characters"),
        ("[[pipeline.stage]]\nagents = [\"a\"]".to_owned(), "stage #1: missing field `name`"),
        (stage("s", &["a b"], ""), "stage \"s\": agents must be"),
        (stage("s", &["x"], ""), "stage \"s\": agents: there is no agent \"x\""),
        (stage("s", &["p"], ""), "stage \"s\": agents: p is a pipeline, expected an agent"),
    ] {
        let toml = format!("{all}{pipeline}{stages}");
        let lines = wrong(&toml);
        assert_eq!(lines.len(), 1, "{lines:?} of\n{toml}");
        assert!(lines[0].starts_with("pipeline p: ") && lines[0].contains(expected), "{lines:?}");
    }
    let good = stage("s", &["a"], "");
    assert_eq!(wrong(&format!("{all}{pipeline}{}", many(16))), Vec::<String>::new());
    for (toml, expected) in [
        (format!("{all}[[pipeline]]\n{good}"), "pipeline #1: missing field `id`"),
        (format!("{all}[[pipeline]]\nid = \"a\"\n{good}"), "pipeline a: there are two of this id"),
        (format!("{all}{pipeline}{good}{pipeline}{good}"), "pipeline p: there are two of this id"),
        (format!("{pipeline}{good}"), "agent: there is none"),
        (format!("pipeline = 1\n{all}"), "pipeline: write [[pipeline]]"),
        (format!("default = \"q\"\n{all}{pipeline}{good}"), "default: there is no agent \"q\""),
    ] {
        assert_eq!(wrong(&toml), [expected], "{toml}");
    }
}

#[test]
fn what_is_no_id_is_shown_fit_for_a_terminal() {
    let agent = |id: &str| format!("[[agent]]\nid = \"{id}\"\nprovider = \"scripted\"\n");
    let must = "id must be 1 to 64 characters of A-Z a-z 0-9 . _ -";
    assert_eq!(wrong(&agent("\\u001b[2J\\n")), [format!("agent \\u{{1b}}[2J\\n: {must}")]);
    let long = format!("agent {}…: {must}", "x".repeat(64));
    assert_eq!(wrong(&agent(&"x".repeat(100_000))), [long]);
}

#[test]
fn fallbacks_are_agents_and_never_come_back() {
    let agent = |id: &str, fallback: &str| {
        format!("[[agent]]\nid = \"{id}\"\nprovider = \"scripted\"\nfallback = \"{fallback}\"\n")
    };
    let line = |id: &str| format!("[[agent]]\nid = \"{id}\"\nprovider = \"scripted\"\n");
    let pipeline = format!("[[pipeline]]\nid = \"p\"\n{}", stage("s", &["a"], ""));
    for (toml, expected) in [
        (agent("a", "b"), "agent a: fallback: there is no agent \"b\""),
        (agent("a", "a b"), "agent a: fallback must be 1 to 64 characters of A-Z a-z 0-9 . _ -"),
        (
            format!("{}{pipeline}", agent("a", "p")),
            "agent a: fallback: p is a pipeline, expected an agent",
        ),
        (agent("a", "a"), "agent a: fallback: a would ask in a round"),
        (
            agent("a", "b") + &agent("b", "c") + &agent("c", "b"),
            "agent b: fallback: b, c would ask in a round",
        ),
        (
            agent("c", "a") + &agent("a", "b") + &agent("b", "c"),
            "agent c: fallback: c, a, b would ask in a round",
        ),
    ] {
        assert_eq!(wrong(&toml), [expected], "{toml}");
    }
    let two = agent("a", "b") + &agent("b", "a") + &agent("c", "d") + &agent("d", "c");
    assert_eq!(wrong(&two).len(), 2, "each round once");
    let shared = agent("a", "c") + &agent("b", "c") + &agent("c", "d") + &line("d");
    assert_eq!(wrong(&shared), Vec::<String>::new(), "several may have the same");

    // What would take hours where the way of each agent was gone through by itself.
    let next = |n: usize| agent(&format!("a{n}"), &format!("a{}", n + 1));
    let long: String = (0..5_000).map(next).collect();
    assert_eq!(wrong(&(long.clone() + &line("a5000"))), Vec::<String>::new());
    let round = "agent a0: fallback: a0, a1, a2, a3, a4, a5, a6, a7, … would ask in a round";
    assert_eq!(wrong(&(long + &agent("a5000", "a0"))), [round]);
}
