package main

import (
	"os"
	"strings"
	"testing"
)

// A keeper without a backing directory leaves what programs understand that
// know of none.
func TestFormatsOfWhatAKeeperLeaves(t *testing.T) {
	plain := keeper{}
	if f := plain.format(); f != 1 {
		t.Errorf("without a backing directory the format is %d", f)
	}
	backed := keeper{backing: os.Stdin}
	if f := backed.format(); f != 2 {
		t.Errorf("with a backing directory the format is %d", f)
	}
	const descriptors = `"descriptors":{"device":0,"state":0,"under":0}`
	for format, good := range map[string]bool{"0": false, "1": true, "2": true, "3": true, "4": false} {
		if code := couldKeep(format); (code == exitOK) != good {
			t.Errorf("a program that is asked for format %s exits with %d", format, code)
		}
		_, err := parseHandover([]byte(`{"format":`+format+`,`+descriptors+`}`), nil)
		if (err == nil) != good {
			t.Errorf("what is left in format %s: %v", format, err)
		}
		if err != nil && !strings.Contains(err.Error(), format) {
			t.Errorf("the error does not tell of format %s: %v", format, err)
		}
	}
	if couldKeep("") == exitOK {
		t.Error("no format is a good one")
	}
}
