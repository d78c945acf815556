# `cargo xtask list --json` -> the matrices of the workflows: a base for each distro that is alive and each
# platform that there are runners for, and a release for each distro. `$distro` is one of them, or empty.
["linux/amd64", "linux/arm64"] as $runners
| [.distros[] | select($distro == "" or .name == $distro) | select($distro != "" or (.ended | not))
    | .platforms -= (.platforms - $runners)] as $distros
| if $distros == [] then error("no distro is called \($distro)") else . end
| {
    bases: {include: [$distros[] | .name as $name | .platforms[] | {distro: $name, platform: .}]},
    releases: {include: [$distros[] | {distro: .name, platforms: (.platforms | tojson)}]}
  }
