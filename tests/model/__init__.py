"""The model of the election: TLC still finds what each rule prevents."""
