# Sourced by what makes container images: archives as `docker save` writes them, which `ctr images import` takes. The same
# folders give the same bytes: no time, owner or order of the file system gets in.

# pack FOLDER TAR NAME...
pack() { tar --format=gnu --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -C "$1" -cf "$2" "${@:3}"; }
digest() { sha256sum "$1" | cut -d' ' -f1; }

# begin_archive FOLDER: what the following functions add to
begin_archive() {
  archive_folder=$1
  declare -gA layer_digests=()
  mkdir -p "$archive_folder"
  echo '[]' >"$archive_folder/manifest.json"
}

# layer NAME FOLDER: a folder as a layer, for as many images as have it
layer() {
  pack "$2" "$archive_folder/$1.tar" .
  layer_digests[$1]=sha256:$(digest "$archive_folder/$1.tar")
}

# image NAME CONFIG LAYER...: CONFIG is JSON for the image's "config" (Cmd, Entrypoint, Env)
image() {
  local name=$1 config=$2 part layers=() digests=() id
  shift 2
  for part in "$@"; do layers+=("$part.tar") digests+=("${layer_digests[$part]}"); done
  jq -cjn --argjson config "$config" '{
      architecture: "amd64", os: "linux", created: "1970-01-01T00:00:00Z", config: $config,
      rootfs: {type: "layers", diff_ids: $ARGS.positional},
      history: [$ARGS.positional[] | {created: "1970-01-01T00:00:00Z", created_by: "kmctl scripts/build"}]
    }' --args "${digests[@]}" >"$archive_folder/config"
  id=$(digest "$archive_folder/config")
  mv "$archive_folder/config" "$archive_folder/$id.json"
  jq -cj --arg name "$name" --arg config "$id.json" \
    '. + [{Config: $config, RepoTags: [$name], Layers: $ARGS.positional}]' "$archive_folder/manifest.json" --args "${layers[@]}" \
    >"$archive_folder/manifest"
  mv "$archive_folder/manifest" "$archive_folder/manifest.json"
}

# end_archive ARCHIVE
end_archive() {
  local files
  chmod 644 "$archive_folder"/*
  # The list comes first: whoever wants the names need not read all of it.
  mapfile -t files < <(cd "$archive_folder" && LC_ALL=C && printf '%s\n' * | grep -vx manifest.json)
  pack "$archive_folder" "$1" manifest.json "${files[@]}"
}
