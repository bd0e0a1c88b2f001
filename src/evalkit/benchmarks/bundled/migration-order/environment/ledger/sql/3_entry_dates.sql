ALTER TABLE entries ADD COLUMN posted_on TEXT;
