# `cargo xtask tags --json` -> what a release's page says: how to get `$version` of `$distro`, which is `$digest`.
.image as $image
| [.distros[] | select(.name == $distro) | .versions[] | select(.version == $version)] as $found
| ($found[0] // error("\($image) has no \($distro)-\($version)"))
| "## \($distro) \($version)\n",
  "`\($image):\(.system)` is `\($digest)`.\n",
  "```",
  "bootc switch \($image):\(.system)",
  (.disks | to_entries[].value | "cargo xtask pull \($image):\(.)", "podman pull \($image):\(.)"),
  "```"
