use std::io::Write as _;

use super::*;

fn hashed(password: &str) -> String {
    bcrypt::hash(password, 4).unwrap()
}

async fn load(content: &str) -> (tempfile::NamedTempFile, Passwords) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(content.as_bytes()).unwrap();
    let passwords = Passwords::load(file.path()).await.unwrap();
    (file, passwords)
}

#[tokio::test]
async fn the_right_password_of_the_right_user_is_accepted() {
    let content = format!("# users\n\n// more\nagent-a:{}\n agent-b:{} \r\n", hashed("pw:a"), hashed("pw b"));
    let (_file, passwords) = load(&content).await;
    assert_eq!(passwords.len(), 2);
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
        let (_file, passwords) = load(&format!("a:{}", hashed("pw").replacen("$2b$", variant, 1))).await;
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
    let (_file, passwords) = load(&content).await;
    assert_eq!(passwords.len(), 1);
    passwords.verify("ok", "pw").await.unwrap();
}

#[tokio::test]
async fn an_unknown_user_costs_a_hash_of_the_same_price() {
    let (_file, passwords) = load(&format!("a:{}", bcrypt::hash("pw", 6).unwrap())).await;
    assert_eq!(cost(&passwords.inner.users.read().decoy), Some(6));
    let (_file, nobody) = load("").await;
    assert!(nobody.is_empty());
    assert_eq!(cost(&nobody.inner.users.read().decoy), Some(DEFAULT_COST));
}

#[tokio::test]
async fn a_changed_file_is_read_again_and_an_absent_one_changes_nothing() {
    let (file, passwords) = load(&format!("a:{}", hashed("old"))).await;
    assert!(!passwords.reload().await.unwrap());
    std::fs::write(file.path(), format!("a:{}", hashed("new"))).unwrap();
    assert!(passwords.reload().await.unwrap());
    passwords.verify("a", "new").await.unwrap();
    assert!(passwords.verify("a", "old").await.is_err());
    let path = file.path().to_owned();
    drop(file);
    let error = passwords.reload().await.unwrap_err().to_string();
    assert!(error.contains(path.to_str().unwrap()), "{error}");
    passwords.verify("a", "new").await.unwrap();
}

#[tokio::test]
async fn a_hash_made_here_is_accepted_here() {
    let (_file, passwords) = load(&format!("a:{}", hash(&Secret::from("pw")).unwrap())).await;
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
