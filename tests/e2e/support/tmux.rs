//! A real terminal: a program in tmux, which is typed at and looked at.

use std::process::{Command, Output};

use super::{Proxy, eventually};

/// A terminal in which a verb of the command line runs against a proxy.
#[derive(Debug)]
pub(crate) struct Terminal {
    directory: tempfile::TempDir,
}

impl Terminal {
    /// Starts a verb. After its end, its exit code and the modes of the terminal are on the screen.
    pub(crate) fn start(proxy: &Proxy, verb: &str, [width, height]: [u16; 2]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let pid = directory.path().join("pid");
        // The terminal stays when the verb has ended.
        let script = format!(
            "sh -c 'echo $$ > {}; exec {} {verb}'; echo \"ended with $?\"; stty -a; cat",
            pid.display(),
            env!("CARGO_BIN_EXE_switchback"),
        );
        let terminal = Self { directory };
        let (width, height) = (width.to_string(), height.to_string());
        let admin = format!("SWITCHBACK_ADMIN=http://{}", proxy.admin);
        let state = format!("SWITCHBACK_STATE_DIR={}", proxy.state_dir().display());
        let started = terminal.tmux(&[
            "new-session",
            "-d",
            "-x",
            &width,
            "-y",
            &height,
            "-e",
            &admin,
            "-e",
            &state,
            "sh",
            "-c",
            &script,
        ]);
        assert!(started.status.success(), "{started:?}");
        terminal
    }

    fn tmux(&self, arguments: &[&str]) -> Output {
        Command::new("tmux")
            .arg("-u")
            .arg("-S")
            .arg(self.directory.path().join("socket"))
            .args(["-f", "/dev/null"])
            .args(arguments)
            .env("LC_ALL", "C.UTF-8")
            .env_remove("TMUX")
            .output()
            .unwrap_or_else(|error| panic!("tmux: {error}; tests/run installs it"))
    }

    fn says(&self, arguments: &[&str]) -> String {
        String::from_utf8_lossy(&self.tmux(arguments).stdout).into_owned()
    }

    /// Types keys, as tmux names them.
    pub(crate) fn press(&self, keys: &[&str]) {
        let sent = self.tmux(&[&["send-keys"], keys].concat());
        assert!(sent.status.success(), "{sent:?}");
    }

    /// What is on the screen.
    pub(crate) fn screen(&self) -> String {
        self.says(&["capture-pane", "-p"])
    }

    /// Waits until all of these are on the screen at once; the screen then.
    #[track_caller]
    pub(crate) fn shows(&self, wanted: &[&str]) -> String {
        let mut screen = String::new();
        let started = std::time::Instant::now();
        while !wanted.iter().all(|wanted| screen.contains(wanted)) {
            assert!(
                started.elapsed() < super::DEADLINE,
                "not in time: {wanted:?} on\n{screen}"
            );
            screen = self.screen();
            std::thread::park_timeout(std::time::Duration::from_millis(10));
        }
        screen
    }

    /// Whether anything is coloured now.
    pub(crate) fn has_colours(&self) -> bool {
        let screen = self.says(&["capture-pane", "-p", "-e"]);
        let styles = screen.split("\u{1b}[").skip(1);
        let styles = styles.filter_map(|style| style.split_once('m'));
        let mut codes = styles.flat_map(|(codes, _)| codes.split(';'));
        codes.any(|code| code.len() == 2 && code.starts_with(['3', '9']) && code != "39")
    }

    /// Process of the verb.
    pub(crate) fn pid(&self) -> rustix::process::Pid {
        let path = self.directory.path().join("pid");
        let mut pid = None;
        eventually("the verb runs", || {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            pid = text
                .trim()
                .parse()
                .ok()
                .and_then(rustix::process::Pid::from_raw);
            pid.is_some()
        });
        pid.unwrap()
    }

    /// Waits for the end of the verb, and requires the terminal to be as it was before; the exit code.
    #[track_caller]
    pub(crate) fn ends(&self) -> i32 {
        let screen = self.shows(&["ended with ", " icanon", " echo "]);
        let modes = self.says(&["display-message", "-p", "#{alternate_on} #{cursor_flag}"]);
        assert_eq!(
            modes.trim(),
            "0 1",
            "the main screen, with its cursor:\n{screen}"
        );
        let code = screen.split("ended with ").nth(1).unwrap();
        code.lines().next().unwrap().trim().parse().unwrap()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the terminal\n{}", self.screen());
        }
        let _ = self.tmux(&["kill-server"]);
    }
}
