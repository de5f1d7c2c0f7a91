#!/bin/sh
# Runs a command that anyone's code may command: `confined.sh DIRECTORY COMMAND...`. It works in DIRECTORY/run.
# As root it gets processes and mounts of its own and an ordinary user without any right, so that nothing of the host
# can be harmed by it; the interpreter stays readable though it may lie in root's own home. As any other user it is that
# user already, and runs as it is. The shell stays as its parent, with the same environment, like a host process.
directory=$1
shift
if [ "$(id -u)" != 0 ]; then
    mkdir -p "$directory/run" && cd "$directory/run" && "$@"
    exit
fi
prefix=$("$1" -c 'import sys; print(sys.base_prefix)')
exec unshare --mount --pid --fork --kill-child --propagation private sh -c '
    prefix=$1 directory=$2; shift 2
    mount -t proc proc /proc
    mkdir -p "$directory/run"
    chown 64999:64999 "$directory" "$directory/run"
    kept=$(mktemp -d) && mount --bind "$prefix" "$kept"
    case $prefix in /root/*)
        mount -t tmpfs -o mode=755 tmpfs /root && mkdir -p "$prefix" && mount --bind "$kept" "$prefix" ;;
    esac
    umount "$kept" && rmdir "$kept"
    cd "$directory/run"
    HOME=$directory exec setpriv --reuid 64999 --regid 64999 --clear-groups --no-new-privs --inh-caps=-all --bounding-set=-all \
        sh -c "\"\$@\"; true" sh "$@"
' sh "$prefix" "$directory" "$@"
