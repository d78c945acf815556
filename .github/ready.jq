# What matrix.jq gives -> what is released: the releases whose base is published, the distros that wait for theirs, and
# the formats. `$list` is `cargo xtask list --json`, `$tags` is `cargo xtask tags --json`, and `$formats` some formats,
# or empty for those of Cargo.toml.
$list[0].all_formats as $known
| (if $formats == "" then $list[0].formats else [$formats | splits(" +") | select(. != "")] end) as $wanted
| ($wanted - $known) as $unknown
| if $unknown != [] then error("no format is called \($unknown[0]): there are \($known | join(", "))") else . end
| [$tags[0].distros[] | select(.bases != []) | .name] as $published
| {
    formats: ($wanted | join(" ")),
    releases: {include: [.releases.include[] | select(.distro | IN($published[]))]},
    waiting: ([.releases.include[].distro] - $published)
  }
