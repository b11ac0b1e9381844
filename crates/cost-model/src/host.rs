//! Where the profile of the machine at hand lies.

use std::{
    env,
    path::{Path, PathBuf},
};

use crate::{CostError, DeviceProfile};

const FILE: &str = "host.ron";

/// The first that exists; one that is wrong is an error, not a reason to look further.
pub(crate) fn load() -> Result<DeviceProfile, CostError> {
    let places = places(env::var_os("XDG_CONFIG_HOME").map(Into::into), env::home_dir());
    match places.iter().find(|path| path.exists()) {
        Some(path) => Ok(DeviceProfile::load(path)?),
        None => Err(CostError::NoHost { places }),
    }
}

fn places(config: Option<PathBuf>, home: Option<PathBuf>) -> Vec<PathBuf> {
    let config = config.filter(|path| path.is_absolute()).or_else(|| Some(home?.join(".config")));
    let in_config = config.map(|folder| folder.join("maskwright").join(FILE));
    [Some(Path::new(FILE).into()), in_config].into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_current_folder_comes_before_the_users_configuration() {
        let of = |config: Option<&str>, home: Option<&str>| places(config.map(Into::into), home.map(Into::into));
        let (home, config) = ("/home/a/.config/maskwright/host.ron", "/etc/a/maskwright/host.ron");
        assert_eq!(of(None, Some("/home/a")), [Path::new(FILE), Path::new(home)]);
        assert_eq!(of(Some("/etc/a"), Some("/home/a")), [Path::new(FILE), Path::new(config)]);
        assert_eq!(of(Some("relative"), None), [Path::new(FILE)]);
    }
}
