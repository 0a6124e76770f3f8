use std::io::Write as _;

use super::*;

fn hashed(password: &str) -> String {
    bcrypt::hash(password, 4).unwrap()
}

fn users(content: &str) -> Passwords {
    Passwords::new("users", &content.into()).unwrap()
}

fn known(passwords: &Passwords) -> usize {
    passwords.inner.users.read().hashes.len()
}

#[tokio::test]
async fn the_right_password_of_the_right_user_is_accepted() {
    let content = format!("# users\n\n// more\nagent-a:{}\n agent-b:{} \r\n", hashed("pw:a"), hashed("pw b"));
    let passwords = users(&content);
    assert_eq!(known(&passwords), 2);
    assert_eq!(passwords.verify("agent-a", "pw:a").await.unwrap().as_str(), "agent-a");
    assert_eq!(passwords.verify("agent-b", "pw b").await.unwrap().as_str(), "agent-b");
    for (user, password) in
        [("agent-a", "pw b"), ("agent-c", "pw:a"), ("", ""), ("agent-a", ""), ("agent-a", "\0")]
    {
        assert!(matches!(passwords.verify(user, password).await, Err(Error::Refused)), "{user}");
    }
}

#[tokio::test]
async fn all_variants_of_bcrypt_are_accepted() {
    for variant in ["$2a$", "$2b$", "$2x$", "$2y$"] {
        let passwords = users(&format!("a:{}", hashed("pw").replacen("$2b$", variant, 1)));
        passwords.verify("a", "pw").await.unwrap();
    }
}

#[tokio::test]
async fn lines_that_are_not_users_are_left_out() {
    let good = hashed("pw");
    let dear = good.replacen("$04$", "$31$", 1);
    let content = format!(
        "Agent:{good}\na/b:{good}\nplain:pw\nmd5:$apr1$x$y\nno colon\n:x\ndear:{dear}\nok:{good}\nok:{good}\n"
    );
    let passwords = users(&content);
    assert_eq!(known(&passwords), 1);
    passwords.verify("ok", "pw").await.unwrap();
}

#[test]
fn an_unknown_user_costs_a_hash_of_the_same_price() {
    let passwords = users(&format!("a:{}", bcrypt::hash("pw", 6).unwrap()));
    let decoy = passwords.inner.users.read().decoy.clone();
    assert_eq!(cost(&decoy), Some(6));
    // An error would come at once, and tell by it.
    assert!(!bcrypt::verify("pw", &decoy).unwrap());
    assert_eq!(cost(&users("").inner.users.read().decoy), Some(DEFAULT_COST));
}

#[tokio::test]
async fn new_content_takes_the_place_of_the_old() {
    let passwords = users(&format!("a:{}\nb:{}", hashed("old"), hashed("b")));
    let before = passwords.generation();
    passwords.replace(&format!("a:{}", hashed("new")).into()).unwrap();
    assert_ne!(passwords.generation(), before);
    passwords.verify("a", "new").await.unwrap();
    assert!(passwords.verify("a", "old").await.is_err());
    assert!(passwords.verify("b", "b").await.is_err());
    passwords.replace(&"# nobody, for a while".into()).unwrap();
    assert!(passwords.verify("a", "new").await.is_err());
}

#[tokio::test]
async fn broken_content_leaves_the_old_users_and_says_what_is_wrong() {
    let good = format!("a:{}", hashed("pw"));
    let passwords = users(&format!("{good}\nold mistake"));
    let broken: [(&[u8], &str); 4] = [
        (b" \n", "users is empty"),
        (b"a:\xff", "not UTF-8"),
        (&good.as_bytes()[..good.len() - 1], "line 1 of users"),
        (b"# a\n\nold mistake\nb:plain", "line 4 of users"),
    ];
    for (content, what) in broken {
        let error = passwords.replace(&Secret::new(content)).unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
        assert!(!error.contains("plain"), "a password is told: {error}");
        passwords.verify("a", "pw").await.unwrap();
    }
    assert_eq!(passwords.generation(), 0);
    // What was tolerated at the start is no reason to refuse what comes later.
    passwords.replace(&format!("old mistake\nb:{}", hashed("pw")).into()).unwrap();
    passwords.verify("b", "pw").await.unwrap();
}

#[tokio::test]
async fn a_hash_made_here_is_accepted_here() {
    let passwords = users(&format!("a:{}", hash(&Secret::from("pw")).unwrap()));
    passwords.verify("a", "pw").await.unwrap();
}

#[tokio::test]
async fn an_agent_shows_the_first_line_of_its_file() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"agent-a:pw:with colon\r\nother:x\n").unwrap();
    let credentials: Credentials = format!("userpass:{}", file.path().display()).parse().unwrap();
    assert_eq!(credentials.method(), "userpass");
    let shown = credentials.load().await.unwrap();
    assert_eq!(shown[CLIENT_ID], "agent-a");
    assert_eq!(shown[CLIENT_SECRET], "pw:with colon");
    assert_eq!("mtls:any".parse::<Credentials>().unwrap(), Credentials::Mtls);
    assert_eq!("header:".parse::<Credentials>().unwrap(), Credentials::Header);
    assert!(Credentials::Mtls.load().await.unwrap().is_empty());

    std::fs::write(file.path(), "nothing").unwrap();
    assert!(matches!(credentials.load().await, Err(Error::BadCredentials { .. })));
    assert!(matches!("userpass:".parse::<Credentials>(), Err(Error::NoFile(_))));
    assert!(matches!("kerberos:x".parse::<Credentials>(), Err(Error::UnknownMethod(_))));
}
