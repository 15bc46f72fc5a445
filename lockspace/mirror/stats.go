package mirror

// Stats says how much a mirror has to do.
type Stats struct {
	Open    int    // files that are open, or being opened
	Limit   int    // how many can be
	Cached  int    // of the open ones, those that hold nothing
	Awaited int    // threads that wait for somebody outside
	Polled  int    // names that are waited for without a thread
	Lost    uint64 // locks that were lost since the beginning
	Stuck   uint64 // how often one could not be given back, and was closed or tried again
	// Published is how often it was written who holds a lock, and Unpublished how
	// often that, or to clear it, failed.
	Published, Unpublished uint64
}

// Stats returns what there is at the moment.
func (m *Mirror) Stats() Stats {
	return Stats{
		Open:    m.files,
		Limit:   m.config.Open,
		Cached:  m.cache.len,
		Awaited: m.threads,
		Polled:  len(m.polls),
		Lost:    m.lost,
		Stuck:   m.stuck,

		Published:   m.publications,
		Unpublished: m.unpublished,
	}
}
