//! What the provider `openai` reads of a response: the input is its body.
#![no_main]

libfuzzer_sys::fuzz_target!(|body: &[u8]| tokencast_fuzz::read_answer("openai", body));
