//! Keys: made by `rsa`, used by `ring`. RS256 is the only algorithm there is, whatever the header of a token says.
//!
//! The id of a key is the SHA-256 of its public half (SPKI, DER) in base64url. So an id stands for one key for ever, and what was read of
//! it never has to be read again.

use std::fmt;
use std::sync::Once;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::signature::{Error as NotSigned, Signer, Verifier};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind, EncodingKey, Header, Validation};
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RsaKeyPair, RsaPublicKeyComponents};
use rsa::pkcs8::{DecodePublicKey, EncodePrivateKey, EncodePublicKey, LineEnding, SecretDocument};
use rsa::traits::PublicKeyParts;
use rsa::{RsaPrivateKey, RsaPublicKey};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::claims::Claims;
use crate::model::secret::Secret;
use crate::model::time::Timestamp;
use crate::ports::tokens::KeyRow;

const BITS: usize = 2048;

/// A key cannot be made, read or used. Never says anything of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("no key could be made: there are no random numbers")]
    Chance,
    #[error("a signing key in the database cannot be read")]
    Unreadable,
    #[error("a token could not be signed")]
    Unsigned,
}

/// One public key of [`JwkSet`], as RFC 7517 has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Jwk {
    pub kty: &'static str,
    pub n: String,
    pub e: String,
    pub kid: String,
    pub alg: &'static str,
    #[serde(rename = "use")]
    pub usage: &'static str,
}

/// What `/.well-known/jwks.json` serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct JwkSet {
    pub keys: Vec<Jwk>,
}

/// Makes a key. Takes some tenths of a second.
pub(super) fn make(now: Timestamp) -> Result<KeyRow, KeyError> {
    let private = RsaPrivateKey::new(&mut rsa::rand_core::OsRng, BITS).map_err(|_| KeyError::Chance)?;
    let public = private.to_public_key();
    let der = public.to_public_key_der().map_err(|_| KeyError::Chance)?;
    let pem = private.to_pkcs8_pem(LineEnding::LF).map_err(|_| KeyError::Chance)?;
    Ok(KeyRow {
        kid: URL_SAFE_NO_PAD.encode(Sha256::digest(der.as_bytes())),
        public_pem: public.to_public_key_pem(LineEnding::LF).map_err(|_| KeyError::Chance)?,
        private_pem: Some(Secret::new(pem.to_string())),
        created: now,
        retired: None,
        keep_until: None,
    })
}

/// The id of a new token: 16 random bytes. Never one that begins with a dash: a command would take it for an option.
pub(super) fn fresh_jti() -> Result<String, KeyError> {
    let mut bytes = [0; 16];
    loop {
        SystemRandom::new().fill(&mut bytes).map_err(|_| KeyError::Chance)?;
        let text = URL_SAFE_NO_PAD.encode(bytes);
        if !text.starts_with('-') {
            return Ok(text);
        }
    }
}

/// The key that signs. Only the two makers of tokens can use it.
pub(super) struct SigningKey {
    kid: String,
    key: EncodingKey,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("kid", &self.kid).finish_non_exhaustive()
    }
}

impl SigningKey {
    pub(super) fn read(row: &KeyRow) -> Result<Self, KeyError> {
        let pem = row.private_pem.as_ref().ok_or(KeyError::Unreadable)?;
        let (_, der) = SecretDocument::from_pem(pem.reveal()).map_err(|_| KeyError::Unreadable)?;
        RsaKeyPair::from_pkcs8(der.as_bytes()).map_err(|_| KeyError::Unreadable)?;
        Ok(Self { kid: row.kid.clone(), key: EncodingKey::from_rsa_der(der.as_bytes()) })
    }

    pub(super) fn kid(&self) -> &str {
        &self.kid
    }

    /// A token with these claims. Whoever calls this must see to its row; [`super::issue`] does.
    pub(super) fn sign(&self, claims: &Claims) -> Result<Secret, KeyError> {
        use_ring();
        let header = Header { kid: Some(self.kid.clone()), ..Header::new(Algorithm::RS256) };
        jsonwebtoken::encode(&header, claims, &self.key).map(Secret::new).map_err(|_| KeyError::Unsigned)
    }
}

/// A key that verifies.
pub(super) struct VerifyingKey {
    key: DecodingKey,
    jwk: Jwk,
}

impl VerifyingKey {
    pub(super) fn read(row: &KeyRow) -> Result<Self, KeyError> {
        let public = RsaPublicKey::from_public_key_pem(&row.public_pem).map_err(|_| KeyError::Unreadable)?;
        let (n, e) = (public.n().to_bytes_be(), public.e().to_bytes_be());
        let jwk = Jwk {
            kty: "RSA",
            n: URL_SAFE_NO_PAD.encode(&n),
            e: URL_SAFE_NO_PAD.encode(&e),
            kid: row.kid.clone(),
            alg: "RS256",
            usage: "sig",
        };
        Ok(Self { key: DecodingKey::from_rsa_raw_components(&n, &e), jwk })
    }

    pub(super) fn jwk(&self) -> &Jwk {
        &self.jwk
    }

    /// The claims of a token that this key signed. Nothing in them is checked yet.
    pub(super) fn open(&self, token: &str) -> Result<Claims, Unopened> {
        use_ring();
        let mut rules = Validation::new(Algorithm::RS256);
        // By our clock and our origins, not by this library's.
        rules.validate_exp = false;
        rules.validate_aud = false;
        rules.required_spec_claims.clear();
        jsonwebtoken::decode(token, &self.key, &rules).map(|data| data.claims).map_err(|error| match error.kind() {
            ErrorKind::InvalidSignature => Unopened::Signature,
            _ => Unopened::Shape,
        })
    }
}

/// Why a token cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unopened {
    Signature,
    Shape,
}

/// The key id in the header of a token, if it is a token that could be ours. Nothing in it is to be believed.
pub(super) fn kid_of(token: &str) -> Option<String> {
    let header = jsonwebtoken::decode_header(token).ok()?;
    let plain = header.crit.is_none() && header.typ.as_deref().is_none_or(|typ| typ.eq_ignore_ascii_case("JWT"));
    header.kid.filter(|_| plain && header.alg == Algorithm::RS256)
}

/// What a token claims, whoever signed it. Nothing in it is to be believed.
pub(super) fn claimed(token: &str) -> Option<Claims> {
    let payload = token.split('.').nth(1)?;
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
}

/// `jsonwebtoken` asks the process for its cryptography; this one knows RS256 and nothing else.
fn use_ring() {
    static ONCE: Once = Once::new();
    static PROVIDER: CryptoProvider =
        CryptoProvider { signer_factory: signer, verifier_factory: verifier, key_utils: KeyUtils::new_unimplemented() };
    // It fails only when there is one already, and nobody else sets one.
    ONCE.call_once(|| {
        let _ = PROVIDER.install_default();
    });
}

fn only_rs256(algorithm: Algorithm, family: AlgorithmFamily) -> Result<(), Error> {
    match algorithm == Algorithm::RS256 && family == AlgorithmFamily::Rsa {
        true => Ok(()),
        false => Err(ErrorKind::InvalidAlgorithm.into()),
    }
}

fn signer(algorithm: &Algorithm, key: &EncodingKey) -> Result<Box<dyn JwtSigner>, Error> {
    only_rs256(*algorithm, key.family())?;
    let pair = RsaKeyPair::from_pkcs8(key.as_bytes()).map_err(|_| Error::from(ErrorKind::InvalidKeyFormat))?;
    Ok(Box::new(RingSigner(pair)))
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>, Error> {
    only_rs256(*algorithm, key.family())?;
    match key.kind() {
        DecodingKeyKind::RsaModulusExponent { n, e } => {
            Ok(Box::new(RingVerifier(RsaPublicKeyComponents { n: n.clone(), e: e.clone() })))
        }
        DecodingKeyKind::SecretOrDer(_) => Err(ErrorKind::InvalidKeyFormat.into()),
    }
}

struct RingSigner(RsaKeyPair);

impl Signer<Vec<u8>> for RingSigner {
    fn try_sign(&self, message: &[u8]) -> Result<Vec<u8>, NotSigned> {
        let mut signature = vec![0; self.0.public().modulus_len()];
        let signed = self.0.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature);
        signed.map(|()| signature).map_err(|_| NotSigned::new())
    }
}

impl JwtSigner for RingSigner {
    fn algorithm(&self) -> Algorithm {
        Algorithm::RS256
    }
}

struct RingVerifier(RsaPublicKeyComponents<Vec<u8>>);

impl Verifier<Vec<u8>> for RingVerifier {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), NotSigned> {
        self.0.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature).map_err(|_| NotSigned::new())
    }
}

impl JwtVerifier for RingVerifier {
    fn algorithm(&self) -> Algorithm {
        Algorithm::RS256
    }
}
