package state

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

const identityFile = "identity"

// The file is text:
//
//	lockfs identity 1
//	9f0c5e7d2ab14c6e8d3f5a7b9c1d2e4f
const identityHead = "lockfs identity 1\n"

// Identity returns a word that no other directory has, of 32 hexadecimal digits: it
// tells what the mounts of this one have left elsewhere from what others have. It is
// made when it is asked for first. A file that is damaged is set aside, and another
// word is made. A directory must not be copied together with it.
func (d *Dir) Identity() (string, error) {
	b, err := d.read(identityFile, 4096)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return "", err
	}
	if err == nil {
		if word, ok := decodeIdentity(b); ok {
			return word, nil
		}
		if err := d.setAside(identityFile, "what was left in backing directories counts as another's"); err != nil {
			return "", err
		}
	}
	word := make([]byte, 16)
	_, _ = rand.Read(word) // it does not fail
	text := hex.EncodeToString(word)
	return text, d.replace(identityFile, fmt.Appendf(nil, "%s%s\n", identityHead, text))
}

// decodeIdentity accepts what Identity makes and nothing else.
func decodeIdentity(b []byte) (word string, ok bool) {
	if len(b) != len(identityHead)+33 || string(b[:len(identityHead)]) != identityHead || b[len(b)-1] != '\n' {
		return "", false
	}
	word = string(b[len(identityHead) : len(b)-1])
	raw, err := hex.DecodeString(word)
	return word, err == nil && hex.EncodeToString(raw) == word
}
