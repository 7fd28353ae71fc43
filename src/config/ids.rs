//! The ids of stores and jobs: the rules, and the suggestions for an ARN, a URL of the console or other text with an id.

use crate::core::kind::StoreType;

/// Which id a key takes.
#[derive(Clone, Copy, Debug)]
pub(super) enum IdOf {
    Store(StoreType),
    Job,
}

/// The rule that an invalid id violates. For an ARN it says which part is the id.
pub(super) fn id_rule(text: &str, wanted: IdOf) -> String {
    if !text.starts_with("arn:") {
        return match wanted {
            IdOf::Store(_) => "must be 10 to 36 digits, not a name".to_owned(),
            IdOf::Job => "must be 10 to 36 digits, as AWS returned them when the job was started".to_owned(),
        };
    }
    let other_store = |store| [StoreType::Reference, StoreType::Sequence].into_iter().find(|other| *other != store);
    match (wanted, id_in_arn(text, wanted)) {
        (IdOf::Store(store), Some(_)) => {
            format!("must be an id, not an ARN: write the part after `{}/`", arn_type(store))
        }
        (IdOf::Store(store), None) => match other_store(store).filter(|other| text.contains(arn_type(*other))) {
            Some(other) => {
                format!(
                    "must be the id of a {}, but this is the ARN of a {}: write `{}`",
                    store.noun(),
                    other.noun(),
                    other.id_key()
                )
            }
            None => format!("must be the id of a {}, but this is the ARN of another resource", store.noun()),
        },
        (IdOf::Job, Some(_)) => "must be an id, not an ARN: write the part after the last `/`".to_owned(),
        (IdOf::Job, None) => "must be the id of a job, but this is the ARN of another resource".to_owned(),
    }
}

/// The ids in a text, the most likely one first. In text with the ids of a store and a job, the job's is the last.
pub(super) fn id_candidates(text: &str, wanted: IdOf) -> Vec<String> {
    if text.starts_with("arn:") {
        return id_in_arn(text, wanted).into_iter().map(str::to_owned).collect();
    }
    let numbers = text.split(|c: char| !c.is_ascii_digit()).filter(|digits| digits.len() >= 10).map(str::to_owned);
    match wanted {
        IdOf::Store(_) => numbers.collect(),
        IdOf::Job => numbers.rev().collect(),
    }
}

/// Returns the wanted id. The resource of an ARN is `sequenceStore/1234567890/importJob/9876543210`, or the store's part of it.
fn id_in_arn(arn: &str, wanted: IdOf) -> Option<&str> {
    let parts: Vec<&str> = arn.rsplit(':').next()?.split('/').collect();
    let pair = parts.chunks_exact(2).find(|pair| match wanted {
        IdOf::Store(store) => pair[0] == arn_type(store),
        IdOf::Job => pair[0].ends_with("Job"),
    });
    pair.map(|pair| pair[1])
}

/// The type of a store in an ARN.
fn arn_type(store: StoreType) -> &'static str {
    match store {
        StoreType::Reference => "referenceStore",
        StoreType::Sequence => "sequenceStore",
    }
}
