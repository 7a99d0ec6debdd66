//! Known answers of the primitives as they are used here, and damage of every kind.

use aws_lc_rs::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::hmac;
use aws_lc_rs::iv::FixedLength;
use proptest::prelude::*;

use super::*;

fn key(byte: u8) -> Secret {
    Zeroizing::new([byte; KEY_BYTES])
}

/// The GCM specification's test case 16 (256-bit key, associated data).
#[test]
fn aes_256_gcm_known_answer() {
    let key = unhex("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308").unwrap();
    let nonce: [u8; 12] = unhex("cafebabefacedbaddecaf888").unwrap().try_into().unwrap();
    let aad = unhex("feedfacedeadbeeffeedfacedeadbeefabaddad2").unwrap();
    let mut text = unhex(
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72\
         1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
    )
    .unwrap();
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key).unwrap());
    let tag = key.seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(&aad), &mut text).unwrap();
    assert_eq!(
        hex(&text),
        "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa\
         8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662"
    );
    assert_eq!(hex(tag.as_ref()), "76fc6ece0f4e1768cddf8853bb2d551b");
}

/// RFC 8439, 2.8.2.
#[test]
fn chacha20_poly1305_known_answer() {
    let key: Vec<u8> = (0x80..=0x9f).collect();
    let nonce: [u8; 12] = unhex("070000004041424344454647").unwrap().try_into().unwrap();
    let aad = unhex("50515253c0c1c2c3c4c5c6c7").unwrap();
    let mut text = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, \
                     sunscreen would be it."
        .to_vec();
    let key = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &key).unwrap());
    let tag = key.seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(&aad), &mut text).unwrap();
    assert_eq!(hex(&text[..16]), "d31a8d34648e60db7b86afbc53ef7ec2");
    assert_eq!(hex(tag.as_ref()), "1ae10b594f09e26a7e902ecbd0600691");
}

/// NIST SP 800-38A, F.5.5.
#[test]
fn aes_256_ctr_known_answer() {
    let key = unhex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4").unwrap();
    let counter: [u8; 16] = unhex("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff").unwrap().try_into().unwrap();
    let mut text = unhex("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51").unwrap();
    let key = EncryptingKey::ctr(UnboundCipherKey::new(&AES_256, &key).unwrap()).unwrap();
    key.less_safe_encrypt(&mut text, EncryptionContext::Iv128(FixedLength::from(&counter))).unwrap();
    assert_eq!(hex(&text), "601ec313775789a5b7a7f504bbf3d228f443e3ca4d62b59aca84e990cacaf5c5");
}

/// RFC 4231, test case 2.
#[test]
fn hmac_sha_256_known_answer() {
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"Jefe");
    let tag = hmac::sign(&key, b"what do ya want for nothing?");
    assert_eq!(hex(tag.as_ref()), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
}

/// RFC 7914, 11: PBKDF2-HMAC-SHA-256 with one iteration and with 80,000 (first 32 of 64 bytes).
#[test]
fn pbkdf2_known_answer() {
    use aws_lc_rs::pbkdf2::{PBKDF2_HMAC_SHA256, derive};
    let mut out = [0; 32];
    let mut answer = |iterations: u32, salt: &[u8], secret: &[u8]| {
        derive(PBKDF2_HMAC_SHA256, iterations.try_into().unwrap(), salt, secret, &mut out);
        hex(&out)
    };
    assert_eq!(answer(1, b"salt", b"passwd"), "55ac046e56e3089fec1691c22544b605f94185216dde0465e68b9d57c20dacbc");
    assert_eq!(
        answer(80_000, b"NaCl", b"Password"),
        "4ddcd8f60b98be21830cee5ef22701f9641a4418d04c0414aeff08876b34ab56"
    );
}

/// RFC 9106, 5.3 (which has a secret and associated data as well).
#[test]
fn argon2id_known_answer() {
    let data = argon2::AssociatedData::new(&[4; 12]).unwrap();
    let mut params = argon2::ParamsBuilder::new();
    params.m_cost(32).t_cost(3).p_cost(4).data(data).output_len(32);
    let secret = [3; 8];
    let hash = argon2::Argon2::new_with_secret(
        &secret,
        argon2::Algorithm::Argon2id,
        argon2::Version::V0x13,
        params.build().unwrap(),
    )
    .unwrap();
    let mut out = [0; 32];
    hash.hash_password_into(&[1; 32], &[2; 16], &mut out).unwrap();
    assert_eq!(hex(&out), "0d640df58d78766c08c037a34a8b53c9d01ef0452d75b65eb52520e96b01e659");
}

/// The formats themselves: what this wrote once, it must open for ever.
#[test]
fn format_known_answers() {
    let answers = [
        (Cipher::None, "68656c6c6f97e91eb327c7b0e1c7def0b2b075e7e3998e7a7836a3552ac36ad82a276ec26a"),
        (Cipher::Aes256Gcm, "9001f4e645883ac80ee776fe12ebb726c6a8429e03"),
        (Cipher::ChaCha20Poly1305, "f6ae6bd6258fc47ddd3061cff4ceb7dfe7294e2ef3"),
        (Cipher::Aes256CtrHmacSha256, "4f7aef938484af68a04ebd1ab188aebedc7521803467cd10cb5220395a1aede3303b443d04"),
    ];
    for (cipher, answer) in answers {
        let object = ObjectKey::new(cipher, Some(&key(7)), "b", "o").unwrap();
        let mut out = Vec::new();
        object.seal(1, true, b"hello", &mut out).unwrap();
        assert_eq!(hex(&out), answer, "{}", cipher.name());
    }
}

#[test]
fn a_key_file_is_32_bytes_or_their_digits() {
    let raw = MasterKey::from_key_file(vec![0xab; 32]).unwrap();
    let digits = MasterKey::from_key_file(format!("{}\n", "ab".repeat(32)).into_bytes()).unwrap();
    assert_eq!(raw.id().unwrap(), digits.id().unwrap());
    for bad in [vec![], vec![1; 31], vec![1; 33], vec![b'g'; 64], vec![0; 32], b"ab".repeat(31)] {
        assert!(MasterKey::from_key_file(bad).is_err());
    }
}

#[test]
fn hostile_derivations_are_refused_before_any_work() {
    let salt = "00".repeat(16);
    let argon = |memory_kib, passes, lanes| Kdf::Argon2id { memory_kib, passes, lanes, salt: salt.clone() };
    let bad = [
        argon(u32::MAX, 1, 1),
        argon(1024, 1, 1),
        argon(65536, 0, 1),
        argon(65536, u32::MAX, 1),
        argon(65536, 1, 0),
        argon(65536, 1, 1 << 20),
        Kdf::Argon2id { memory_kib: 65536, passes: 1, lanes: 1, salt: "00".repeat(15) },
        Kdf::Argon2id { memory_kib: 65536, passes: 1, lanes: 1, salt: "zz".repeat(16) },
        Kdf::Pbkdf2HmacSha256 { iterations: 1, salt: salt.clone() },
        Kdf::Pbkdf2HmacSha256 { iterations: u32::MAX, salt: salt.clone() },
    ];
    let passphrase = Passphrase::new(b"long enough".to_vec()).unwrap();
    for kdf in bad {
        assert!(MasterKey::from_passphrase(&passphrase, &kdf).is_err(), "{kdf:?}");
    }
    assert!(Passphrase::new(b"short\n".to_vec()).is_err());
}

#[test]
fn an_envelope_opens_with_its_key_for_its_backup_alone() {
    let passphrase = Passphrase::new(b"correct horse\n".to_vec()).unwrap();
    let other = Passphrase::new(b"wrong horse".to_vec()).unwrap();
    let kdf = Kdf::Argon2id { memory_kib: 8 * 1024, passes: 1, lanes: 1, salt: "5a".repeat(16) };
    let master = MasterKey::from_passphrase(&passphrase, &kdf).unwrap();
    let data_key = new_data_key().unwrap();
    let envelope = seal_data_key(&master, "b1", Cipher::Aes256Gcm, &data_key).unwrap();
    assert_eq!(envelope.open(&master, "b1", Cipher::Aes256Gcm).unwrap(), data_key);
    let wrong = MasterKey::from_passphrase(&other, &kdf).unwrap();
    assert!(matches!(envelope.open(&wrong, "b1", Cipher::Aes256Gcm), Err(CryptoError::WrongKey { .. })));
    assert_eq!(envelope.open(&master, "b2", Cipher::Aes256Gcm), Err(CryptoError::Authentication));
    assert_eq!(envelope.open(&master, "b1", Cipher::ChaCha20Poly1305), Err(CryptoError::Authentication));
    for at in 0..envelope.wrapped.len() {
        let mut changed = envelope.clone();
        let byte = changed.wrapped.as_bytes()[at];
        changed.wrapped.replace_range(at..=at, if byte == b'0' { "1" } else { "0" });
        assert_eq!(changed.open(&master, "b1", Cipher::Aes256Gcm), Err(CryptoError::Authentication));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn chunks_open_where_they_belong_and_nowhere_else(
        cipher in prop::sample::select(&Cipher::ALL[..]),
        plain in prop::collection::vec(any::<u8>(), 0..300),
        index in 0_u64..1 << 40,
        last: bool,
        flip in any::<prop::sample::Index>(),
        bit in 0_u8..8,
    ) {
        let object = ObjectKey::new(cipher, Some(&key(1)), "backup", "object").unwrap();
        let mut sealed = Vec::new();
        object.seal(index, last, &plain, &mut sealed).unwrap();
        prop_assert_eq!(sealed.len(), plain.len() + cipher.tag_bytes());
        let mut copy = sealed.clone();
        prop_assert_eq!(object.open(index, last, &mut copy).unwrap(), &plain[..]);

        let mut damaged = sealed.clone();
        damaged[flip.index(sealed.len())] ^= 1 << bit;
        prop_assert!(object.open(index, last, &mut damaged).is_err());
        prop_assert!(object.open(index, !last, &mut sealed.clone()).is_err());
        prop_assert!(object.open(index + 1, last, &mut sealed.clone()).is_err());
        let cut = flip.index(sealed.len());
        prop_assert!(object.open(index, last, &mut sealed.clone()[..cut]).is_err());
        for (backup, name) in [("backup", "other"), ("other", "object"), ("backupo", "bject")] {
            let other = ObjectKey::new(cipher, Some(&key(1)), backup, name).unwrap();
            prop_assert!(other.open(index, last, &mut sealed.clone()).is_err());
        }
        if cipher.encrypts() {
            let other = ObjectKey::new(cipher, Some(&key(2)), "backup", "object").unwrap();
            prop_assert!(other.open(index, last, &mut sealed.clone()).is_err());
            if plain.len() > 16 {
                prop_assert!(!sealed.windows(plain.len()).any(|window| window == plain));
            }
        }
    }
}
