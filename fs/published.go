package fs

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lockfs/lockfs/lockspace"
	"github.com/lockfs/lockfs/lockspace/mirror"
)

// The text that is published about those who hold a lock. It is a format that
// outlives the program, and is read by other versions of it:
//
//	by=BOOT:NAMESPACE:PID:STARTED    the process that has written it
//	pid=...                          and so on: a record, as a reader of the lock
//	...                              sees it, but for waiting, of each holder, the
//	                                 oldest first; an empty line between two
//
// BOOT is the boot id of its host, NAMESPACE the number of the pid namespace in which
// PID is; STARTED is when it started, in nanoseconds since boot. Who has the same two
// looks whether it lives: one that has died has left the text behind. Of other hosts
// only the lock tells.
//
// What is read is a stranger's word, whoever he says that he is: it is shown, and
// nothing is done about processes that it names.

// publishedKeys are the keys of a record in a text, in this order.
var publishedKeys = [...]string{"pid", "uid", "user", "comm", "host", "cgroup", "mode", "via", "since", "token"}

// maxValue is how long a value may be. A longer one is left out, so that there is
// room for one record at least.
const maxValue = 1024

// published is a holder as another daemon has published him: the values of
// [publishedKeys].
type published [len(publishedKeys)]string

// value returns the value of a key.
func (p *published) value(key string) string { return p[slices.Index(publishedKeys[:], key)] }

// number is value for one that is a number.
func (p *published) number(key string) uint64 {
	n, _ := strconv.ParseUint(p.value(key), 10, 64)
	return n
}

// formatPublished writes the text: as many records as fit. On detours only.
func formatPublished(procs Processes, holds []*lockspace.Hold) []byte {
	b := fmt.Appendf(nil, "by=%s\n", writtenBy(procs))
	for i, h := range holds {
		var record []byte
		if i > 0 {
			record = append(record, '\n')
		}
		for _, f := range holderFields(procs, h) {
			value := fmt.Sprint(f.value)
			if len(value) > maxValue {
				value = ""
			}
			record = fmt.Appendf(record, "%s=%s\n", f.key, value)
		}
		if len(b)+len(record) > mirror.MaxText {
			break
		}
		b = append(b, record...)
	}
	return b
}

// parsePublished returns the holders of a text whose writer is not known to have
// died; none if it is of no such format.
func parsePublished(procs Processes, text []byte) []published {
	by, rest, _ := strings.Cut(string(text), "\n")
	who, ok := strings.CutPrefix(by, "by=")
	if !ok || !strings.HasSuffix(rest, "\n") || hasLeft(procs, who) {
		return nil
	}
	var all []published
	for record := range strings.SplitSeq(strings.TrimSuffix(rest, "\n"), "\n\n") {
		lines := strings.Split(record, "\n")
		if len(lines) != len(publishedKeys) {
			return nil
		}
		var p published
		for i, key := range publishedKeys {
			value, ok := strings.CutPrefix(lines[i], key+"=")
			if !ok || len(value) > maxValue || !plausible(key, value) {
				return nil
			}
			p[i] = value
		}
		all = append(all, p)
	}
	return all
}

// plausible reports whether a value is one of its key.
func plausible(key, value string) bool {
	var err error
	switch key {
	case "pid", "uid":
		_, err = strconv.ParseUint(value, 10, 32)
	case "token":
		_, err = strconv.ParseUint(value, 10, 64)
	case "since":
		_, err = time.Parse(time.RFC3339Nano, value)
	case "mode":
		return value == lockspace.Shared.String() || value == lockspace.Exclusive.String()
	case "via":
		for via := range vias {
			if value == via.String() {
				return true
			}
		}
		return false
	}
	return err == nil && !strings.ContainsFunc(value, isUnprintable)
}

// isUnprintable reports whether a character cannot be in a value, see [escape].
func isUnprintable(r rune) bool { return r < ' ' || r == 0x7f }

// writtenBy returns who writes, for by.
func writtenBy(procs Processes) string {
	k, _ := procs.Kin(uint32(os.Getpid()))
	return fmt.Sprintf("%s:%d:%d:%d", bootID(), procs.Namespace(), os.Getpid(), k.Started)
}

// hasLeft reports whether who wrote a text has died. Of who cannot be seen from here
// it is not known.
func hasLeft(procs Processes, who string) bool {
	parts := strings.Split(who, ":")
	if len(parts) != 4 {
		return true
	}
	here := parts[0] == bootID() && parts[1] == strconv.FormatUint(procs.Namespace(), 10)
	if !here {
		return false
	}
	pid, err := strconv.ParseUint(parts[2], 10, 32)
	if err != nil {
		return true
	}
	k, ok := procs.Kin(uint32(pid))
	return !ok || strconv.FormatInt(int64(k.Started), 10) != parts[3]
}

// bootID tells this run of the machine from others, "" if there is no telling.
func bootID() string {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b))
}
