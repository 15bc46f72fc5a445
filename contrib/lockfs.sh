# lockfs.sh: locks of a lockfs mount for shell scripts. To be sourced; works in
# dash, bash, and any POSIX shell whose test(1) has -ef.
#
#	. /usr/local/lib/lockfs.sh
#	lockfs_wait 60 /run/mylocks/backup || exit
#	... # nobody else is here
#	lockfs_release /run/mylocks/backup
#
#	lockfs_take NAME            takes a lock; waits for it as long as it takes
#	lockfs_try NAME             takes a lock if it can be had at once
#	lockfs_wait SECONDS NAME    takes a lock, and waits for it no longer than that
#	lockfs_release [NAME...]    gives locks back; without NAME all that it has taken
#	lockfs_who NAME             prints who holds a lock, as key=value lines, with an
#	                            empty line between those who share it
#
# NAME is a path on the mount, of any bytes. The same path that took a lock releases
# it. Locks are exclusive, and are the shell's: they end when it does, by whatever
# death. Who waits is served in the order in which he came.
#
# status  meaning
# 0       done
# 1       another holds the lock (try), still (wait); nobody holds it (who)
# 2       called wrongly: the reason is on standard error. Also: the shell holds the
#         lock already (it would wait for itself), or does not (release)
# 3       it cannot be done: not on a lockfs mount, not permitted, no flock(1), no free
#         descriptor; the reason is on standard error
# 4       released, but the lock had been lost before: broken, or its lease was over
# 129...  a signal that the script traps came while it waited: 128 and its number. The
#         trap has been run, and the lock is not held
#
# Needs: flock(1), as in util-linux, which every Debian has. It is the only call that
# a shell can make that waits in line, and that is the same in all lockspaces: what
# set -C takes, where names hold (hold=name), is held until its name is removed, a name
# that by then may be somebody else's. So where names hold the file stays, empty, and
# blocks who takes by set -C; its mode is as umask says, and who can neither read it nor
# write it cannot lock it. Where open files hold (hold=handle), it is gone. In
# lockspaces with hold=open, plain redirections lock, and these functions refuse.
#
# Each lock takes one of the descriptors 3 to 9 that is free. What the script starts
# inherits it, and may go on after the lock was released, but not after the script
# died: then the lock is held until the child has ended too, unless the child was
# started with the descriptor closed. set -e, set -u and set -C do no harm. A trap may
# release, though not take while something is being taken; one on EXIT is not needed.
# Not for subshells: what is taken in ( ) ends with it, and they have no locks of their
# shell to release.

# _lockfs_say NAME MESSAGE: a reason.
_lockfs_say() {
	printf 'lockfs: %s: %s\n' "$1" "$2" >&2
}

lockfs_take() {
	[ "$#" = 1 ] || { _lockfs_say lockfs_take 'usage: lockfs_take NAME'; return 2; }
	_lockfs_get wait '' "$1"
}

lockfs_try() {
	[ "$#" = 1 ] || { _lockfs_say lockfs_try 'usage: lockfs_try NAME'; return 2; }
	_lockfs_get try '' "$1"
}

lockfs_wait() {
	[ "$#" = 2 ] || { _lockfs_say lockfs_wait 'usage: lockfs_wait SECONDS NAME'; return 2; }
	case $1 in
	*[!0-9.]* | *.*.* | . | '')
		_lockfs_say "$2" "not a number of seconds: $1"
		return 2
		;;
	esac
	case $1 in
	*[1-9]*) _lockfs_get wait "$1" "$2" ;;
	*) _lockfs_get try '' "$2" ;;
	esac
}

lockfs_release() {
	if [ "$#" = 0 ]; then
		_lockfs_r_status=0
		for _lockfs_r_fd in 9 8 7 6 5 4 3; do
			eval "_lockfs_r_name=\${_lockfs_held_$_lockfs_r_fd-}"
			[ -z "$_lockfs_r_name" ] || _lockfs_drop || _lockfs_r_status=4
		done
		return "$_lockfs_r_status"
	fi
	_lockfs_r_status=0
	for _lockfs_r_want in "$@"; do
		_lockfs_r_found=
		for _lockfs_r_fd in 9 8 7 6 5 4 3; do
			eval "_lockfs_r_name=\${_lockfs_held_$_lockfs_r_fd-}"
			if [ -n "$_lockfs_r_name" ] && [ "$_lockfs_r_name" = "$_lockfs_r_want" ]; then
				_lockfs_r_found=yes
				_lockfs_drop || _lockfs_r_status=4
			fi
		done
		if [ -z "$_lockfs_r_found" ]; then
			_lockfs_say "$_lockfs_r_want" 'this shell does not hold it'
			_lockfs_r_status=2
		fi
	done
	return "$_lockfs_r_status"
}

# _lockfs_drop unlocks and closes _lockfs_r_fd, which holds _lockfs_r_name. Fails if
# the lock was lost. It unlocks, although it closes, for children that have the file.
_lockfs_drop() {
	eval "_lockfs_held_$_lockfs_r_fd="
	_lockfs_r_lost=
	flock -u "$_lockfs_r_fd" 2>/dev/null || _lockfs_r_lost=yes
	eval "exec $_lockfs_r_fd>&-"
	[ -z "$_lockfs_r_lost" ] || { _lockfs_say "$_lockfs_r_name" 'the lock was lost before it was released'; return 1; }
}

lockfs_who() {
	[ "$#" = 1 ] || { _lockfs_say lockfs_who 'usage: lockfs_who NAME'; return 2; }
	_lockfs_split "$1" || return
	_lockfs_w_text=$(cat "$_lockfs_dir/.lockfs/lock/$_lockfs_base/holder") || {
		_lockfs_say "$1" 'who holds it cannot be read'
		return 3
	}
	[ -n "$_lockfs_w_text" ] || return 1
	printf '%s\n' "$_lockfs_w_text"
}

# _lockfs_split NAME sets _lockfs_dir and _lockfs_base, if NAME can be a lock.
_lockfs_split() {
	case $1 in
	/*) _lockfs_dir=${1%/*}/ _lockfs_base=${1##*/} ;;
	*/*) _lockfs_dir=./${1%/*} _lockfs_base=${1##*/} ;;
	*) _lockfs_dir=. _lockfs_base=$1 ;;
	esac
	case $_lockfs_base in
	'' | . | .. | .lockfs)
		_lockfs_say "$1" 'not a name of a lock'
		return 2
		;;
	esac
	_lockfs_hold=
	{ IFS= read -r _lockfs_hold <"$_lockfs_dir/.lockfs/policy/hold"; } 2>/dev/null || true
	case $_lockfs_hold in
	'')
		_lockfs_say "$1" 'not in a directory of a lockfs mount'
		return 3
		;;
	open)
		_lockfs_say "$1" 'plain redirections take the locks of this directory (hold=open)'
		return 3
		;;
	esac
}

# _lockfs_get try|wait SECONDS NAME does what the functions above say.
_lockfs_get() {
	if [ -n "${_lockfs_getting-}" ]; then
		_lockfs_say "$3" "a lock is being taken already: $_lockfs_getting"
		return 2
	fi
	_lockfs_split "$3" || return
	if ! command -v flock >/dev/null; then
		_lockfs_say "$3" 'flock(1) is needed (Debian: util-linux)'
		return 3
	fi
	_lockfs_getting=$3
	_lockfs_status=0
	_lockfs_choose "$3" || _lockfs_status=$?
	if [ "$_lockfs_status" = 0 ]; then
		_lockfs_lock "$@" || _lockfs_status=$?
	fi
	if [ "$_lockfs_status" = 0 ]; then
		eval "_lockfs_held_$_lockfs_fd=\$_lockfs_getting"
	fi
	_lockfs_getting=
	return "$_lockfs_status"
}

# _lockfs_choose NAME sets _lockfs_path, and _lockfs_fd to a free descriptor. Fails if
# the shell holds the lock already, by whatever path.
_lockfs_choose() {
	_lockfs_path=$_lockfs_dir/$_lockfs_base
	_lockfs_fd=
	for _lockfs_n in 9 8 7 6 5 4 3; do
		eval "_lockfs_name=\${_lockfs_held_$_lockfs_n-}"
		if [ -n "$_lockfs_name" ]; then
			if [ "$_lockfs_name" = "$1" ] || [ "/dev/fd/$_lockfs_n" -ef "$_lockfs_path" ]; then
				_lockfs_say "$1" 'this shell holds it already'
				return 2
			fi
		elif [ -z "$_lockfs_fd" ] && ! { true >&"$_lockfs_n"; } 2>/dev/null; then
			_lockfs_fd=$_lockfs_n
		fi
	done
	[ -n "$_lockfs_fd" ] || { _lockfs_say "$1" 'no descriptor from 3 to 9 is free'; return 3; }
}

# _lockfs_lock try|wait SECONDS NAME opens _lockfs_path as _lockfs_fd and locks it. It
# may have been removed before it was locked, and another made in its place.
_lockfs_lock() {
	for _lockfs_n in 1 2 3 4 5 6 7 8 9; do
		_lockfs_open "$3" || return
		_lockfs_rc=0
		flock -n -x "$_lockfs_fd" 2>/dev/null || _lockfs_rc=$?
		if [ "$_lockfs_rc" = 1 ] && [ "$1" = wait ]; then
			_lockfs_rc=0
			_lockfs_await "$2" || _lockfs_rc=$?
		fi
		if [ "/dev/fd/$_lockfs_fd" -ef "$_lockfs_path" ]; then
			[ "$_lockfs_rc" != 0 ] || return 0
			eval "exec $_lockfs_fd>&-"
			case $_lockfs_rc in
			1) return 1 ;;
			12[89] | 1[3-9]? | 2??) return "$_lockfs_rc" ;;
			esac
			_lockfs_say "$3" "flock(1) failed with status $_lockfs_rc"
			return 3
		fi
		eval "exec $_lockfs_fd>&-"
		[ "$_lockfs_rc" -le 128 ] || return "$_lockfs_rc"
	done
	_lockfs_say "$3" 'it keeps being removed'
	return 3
}

# _lockfs_open NAME opens, for reading only if it is another user's: to lock it, that is
# enough.
_lockfs_open() {
	if [ -d "$_lockfs_path" ]; then
		_lockfs_say "$1" 'is a directory'
		return 3
	fi
	{ eval "command exec $_lockfs_fd<>\"\$_lockfs_path\""; } 2>/dev/null && return
	{ eval "command exec $_lockfs_fd<\"\$_lockfs_path\""; } 2>/dev/null && return
	_lockfs_say "$1" 'cannot be opened to be locked'
	return 3
}

# _lockfs_await SECONDS waits in line for _lockfs_fd, in a child, so that a signal that
# the script traps ends the wait; and the child ends with the script, if there is
# setpriv(1), so that nobody waits behind one who is gone.
_lockfs_await() {
	set -- flock ${1:+-w "$1"} -x "$_lockfs_fd"
	if setpriv --pdeathsig KILL true 2>/dev/null; then
		set -- setpriv --pdeathsig KILL "$@"
	fi
	"$@" &
	_lockfs_child=$!
	_lockfs_got=0
	wait "$_lockfs_child" || _lockfs_got=$?
	if [ "$_lockfs_got" -gt 128 ]; then
		kill -KILL "$_lockfs_child" 2>/dev/null || true
		wait "$_lockfs_child" 2>/dev/null || true
	fi
	return "$_lockfs_got"
}
