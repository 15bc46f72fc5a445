package fs

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"testing"
)

func TestBodyPid(t *testing.T) {
	for _, c := range []struct {
		name, body string
		pid        uint32
		whole      bool
	}{
		{"shlock, LCK..", "     19531\n", 19531, true},
		{"dotlockfile, echo $$", "123\n", 123, true},
		{"printf %d", "123", 123, false},
		{"an HDB number without its newline", "     19531", 19531, false},
		{"padded with zeros", "0000019531\n", 19531, true},
		{"zc.lockfile", " 77\n", 77, true},
		{"newlines and blanks around it", "\n\n \t77 \t\n\n", 77, true},
		{"a blank, no newline", "77 ", 77, false},
		{"the largest", "4194304\n", 4194304, true},
		{"the first process", "1\n", 1, true},
		{"minicom", "     19531 minicom alice\n", 19531, true},
		{"minicom, a part", "     19531 mini", 19531, false},
		{"minicom, a program only", "     19531 minicom\n", 19531, true},
		{"GnuPG", "     19531\nhost.example.org\n", 19531, true},
		{"GnuPG, a part", "     19531\nhost", 19531, true},

		{"nothing", "", 0, false},
		{"blanks", "  \n", 0, false},
		{"procmail", "0", 0, false},
		{"no pid, padded", "         0\n", 0, false},
		{"no pid, padded with zeros", "0000000000\n", 0, false},
		{"a mode", "0644\n", 0, false},
		{"too large", "4194305\n", 0, false},
		{"seconds since 1970", "1795364400\n", 0, false},
		{"more than 32 bits", "4294967297\n", 0, false},
		{"more digits than HDB has", "00000019531\n", 0, false},
		{"more digits than fit anywhere", strings.Repeat("0", 4000) + "1\n", 0, false},
		{"negative", "-1\n", 0, false},
		{"signed", "+12\n", 0, false},
		{"hexadecimal", "0x1f\n", 0, false},
		{"a fraction", "12.5\n", 0, false},
		{"binary", "\x4b\x4c\x00\x00", 0, false},
		{"a zero byte behind it", "123\n\x00", 0, false},
		{"a carriage return", "123\r\n", 0, false},
		{"Mercurial", "host:123", 0, false},
		{"pid and host", "123:host\n", 0, false},
		{"filelock's pid and host", "123\nhost\n", 0, false},
		{"pid and host in words", "123 host\n", 0, false},
		{"sendmail.pid", "123\n/usr/sbin/sendmail -bd -q30m\n", 0, false},
		{"a date", "22 Nov 2026\n", 0, false},
		{"uniq -c", "      3 word\n", 0, false},
		{"two numbers", "12 13\n", 0, false},
		{"a table", "        12 a b\n        13 c d\n", 0, false},
		{"three words", "        12 a b c\n", 0, false},
		{"three lines", "        12\na\nb\n", 0, false},
		{"a line of words", "        12\na b\n", 0, false},
		{"ten columns, not in the first line", "\n       12 a b\n", 0, false},
		{"ten columns by a tab", "\t       12 a b\n", 0, false},
		{"a tab behind it", "        12\ta\n", 0, false},
		{"a letter behind it", "    100000A\n", 0, false},
		{"a letter behind a short one", "12A\n", 0, false},
		{"no text behind it", "        12 \x01\n", 0, false},
		{"JSON", `{"pid":123}`, 0, false},
		{"a digit of another script", "١٢\n", 0, false},
	} {
		if pid, whole := bodyPid([]byte(c.body)); pid != c.pid || whole != c.whole {
			t.Errorf("%s: %q is %d, %v; want %d, %v", c.name, c.body, pid, whole, c.pid, c.whole)
		}
	}
}

// While a tool writes its body piece by piece, what was a whole pid stays it.
func TestBodyPidGrows(t *testing.T) {
	for _, body := range []string{"     19531\n", "19531\n", "     19531\nhost\n", "     19531 minicom alice\n"} {
		settled := false
		for n := range len(body) + 1 {
			pid, whole := bodyPid([]byte(body[:n]))
			if settled && (!whole || pid != 19531) {
				t.Errorf("%q was a whole pid and now is %d, %v", body[:n], pid, whole)
			}
			settled = settled || whole
		}
		if !settled {
			t.Errorf("%q is never a whole pid", body)
		}
	}
}

func FuzzBodyPid(f *testing.F) {
	for _, seed := range []string{"", "0", "123", "123\n", "     19531\n", "     19531 minicom alice\n",
		"     19531\nhost\n", "0000019531\n", "4194304\n", "4294967297\n", "22 Nov\n", "1:a\n", "\n 1 \n"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		before := bytes.Clone(body)
		pid, whole := bodyPid(body)
		if !bytes.Equal(body, before) {
			t.Fatal("the body was changed")
		}
		if pid == 0 {
			if whole {
				t.Fatalf("%q is no pid, and whole", body)
			}
			// Every plain number is one.
			text := strings.Trim(string(body), " \t\n")
			if n, err := strconv.ParseUint(text, 10, 32); err == nil && n > 0 && n <= maxPid && text == fmt.Sprint(n) {
				t.Fatalf("%q is said to be no pid", body)
			}
			return
		}
		if pid > maxPid {
			t.Fatalf("%q is %d, more than a pid can be", body, pid)
		}
		// The first word is the number, and what is behind it only text.
		fields := strings.FieldsFunc(string(body), func(r rune) bool { return strings.ContainsRune(blanks, r) })
		if n, err := strconv.ParseUint(fields[0], 10, 64); err != nil || n != uint64(pid) {
			t.Fatalf("%q is said to be %d", body, pid)
		}
		if len(fields) > 1 && string(body[:hdbWidth]) != fmt.Sprintf("%10d", pid) && string(body[:hdbWidth]) != fmt.Sprintf("%010d", pid) {
			t.Fatalf("%q is said to be %d, with something behind it", body, pid)
		}
		if whole != strings.Contains(strings.TrimLeft(string(body), blanks), "\n") {
			t.Fatalf("%q: whole is %v", body, whole)
		}
	})
}
