//! Signatures of notifications by the Standard Webhooks specification, version 1: HMAC-SHA256 over id, time stamp and body.
//!
//! A sink verifies them with any library of that specification. During a rotation a request is signed with each secret.

use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

const SECRET_PREFIX: &str = "whsec_";

/// The version of the signature's scheme.
const VERSION_PREFIX: &str = "v1,";

/// The specification's bounds for a secret, in bytes.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// A secret that signs. `Debug` hides it, and nothing returns it.
#[derive(Clone)]
pub struct SigningSecret(Hmac<Sha256>);

impl SigningSecret {
    /// Parses `whsec_` and base64.
    ///
    /// # Errors
    /// The fault, as text that does not contain the secret.
    pub fn parse(text: &str) -> Result<Self, String> {
        let encoded = text.strip_prefix(SECRET_PREFIX).ok_or("a secret must start with `whsec_`")?;
        let bytes = BASE64_STANDARD.decode(encoded).map_err(|_| "the text after `whsec_` must be base64")?;
        if !SECRET_BYTES.contains(&bytes.len()) {
            let (min, max) = SECRET_BYTES.into_inner();
            return Err(format!("a secret must have {min} to {max} bytes before base64, this one has {}", bytes.len()));
        }
        Hmac::new_from_slice(&bytes).map(Self).map_err(|error| error.to_string())
    }
}

impl fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningSecret")
    }
}

/// The value of `webhook-signature`: `v1,<base64>` for each secret, separated by spaces. `timestamp` is in seconds since 1970 and
/// equals the header `webhook-timestamp`.
#[must_use]
pub fn sign(secrets: &[SigningSecret], id: &str, timestamp: i64, body: &[u8]) -> String {
    let signature = |secret: &SigningSecret| {
        let signed = secret.0.clone().chain_update(format!("{id}.{timestamp}.")).chain_update(body);
        format!("{VERSION_PREFIX}{}", BASE64_STANDARD.encode(signed.finalize().into_bytes()))
    };
    secrets.iter().map(signature).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    // The example of the specification's libraries.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const TIMESTAMP: i64 = 1_614_265_330;
    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    fn secret(text: &str) -> SigningSecret {
        SigningSecret::parse(text).expect("a secret")
    }

    fn other_secret() -> SigningSecret {
        secret(&format!("whsec_{}", BASE64_STANDARD.encode([7; 64])))
    }

    #[test]
    fn the_published_example_has_the_published_signature() {
        assert_eq!(sign(&[secret(SECRET)], ID, TIMESTAMP, BODY), SIGNATURE);
    }

    #[test]
    fn during_a_rotation_there_is_a_signature_by_every_secret() {
        let (old, new) = (secret(SECRET), other_secret());
        let by_new = sign(std::slice::from_ref(&new), ID, TIMESTAMP, BODY);
        assert_eq!(sign(&[new, old], ID, TIMESTAMP, BODY), format!("{by_new} {SIGNATURE}"));
        assert_eq!(sign(&[], ID, TIMESTAMP, BODY), "");
    }

    #[test]
    fn the_signature_depends_on_the_secret_and_on_every_signed_part() {
        let secrets = [secret(SECRET)];
        for other in [
            sign(&secrets, "msg_other", TIMESTAMP, BODY),
            sign(&secrets, ID, TIMESTAMP + 1, BODY),
            sign(&secrets, ID, TIMESTAMP, br#"{"test": 2432232315}"#),
            sign(&[other_secret()], ID, TIMESTAMP, BODY),
        ] {
            assert!(other.starts_with("v1,") && other != SIGNATURE, "{other}");
        }
    }

    #[test]
    fn a_secret_has_a_prefix_and_24_to_64_bytes_and_is_never_shown() {
        let of_length = |length| format!("whsec_{}", BASE64_STANDARD.encode(vec![7; length]));
        let error = |text: &str| SigningSecret::parse(text).expect_err("a wrong secret");
        for length in [24, 64] {
            assert!(SigningSecret::parse(&of_length(length)).is_ok(), "{length} bytes");
        }
        for length in [0, 23, 65] {
            let expected = format!("a secret must have 24 to 64 bytes before base64, this one has {length}");
            assert_eq!(error(&of_length(length)), expected);
        }
        assert_eq!(error(&SECRET["whsec_".len()..]), "a secret must start with `whsec_`");
        assert_eq!(error("whsec_!"), "the text after `whsec_` must be base64");
        assert_eq!(format!("{:?}", [secret(SECRET)]), "[SigningSecret]");
    }
}
