package space

import "unicode/utf8"

// Names of files are bytes, and JSON is UTF-8.

// saveName returns a name as text, and, if it is not UTF-8, as what encodes to
// base64.
func saveName(name string) (text string, binary []byte) {
	if utf8.ValidString(name) {
		return name, nil
	}
	return name, []byte(name)
}

func restoreName(text string, binary []byte) string {
	if binary != nil {
		return string(binary)
	}
	return text
}
