/** Scripts by their Unicode names; a character of none of them goes with anything. */
const NAMES = `Common Latin Cyrillic Greek Arabic Hebrew Thai Hangul Devanagari Bengali Tamil Telugu Kannada Malayalam Gujarati
  Gurmukhi Oriya Sinhala Lao Tibetan Myanmar Georgian Armenian Ethiopic Cherokee Mongolian Khmer Syriac Thaana Bopomofo Braille
  Canadian_Aboriginal Ogham Runic Yi Coptic Gothic Inherited Adlam Ahom Anatolian_Hieroglyphs Avestan Balinese Bamum Bassa_Vah
  Batak Bhaiksuki Brahmi Buginese Buhid Carian Caucasian_Albanian Chakma Cham Cuneiform Cypriot Deseret Duployan
  Egyptian_Hieroglyphs Elbasan Glagolitic Grantha Hanunoo Hatran Imperial_Aramaic Inscriptional_Pahlavi Inscriptional_Parthian
  Javanese Kaithi Kayah_Li Kharoshthi Khojki Khudawadi Lepcha Limbu Linear_A Linear_B Lisu Lycian Lydian Mahajani Mandaic
  Manichaean Marchen Meetei_Mayek Mende_Kikakui Meroitic_Cursive Meroitic_Hieroglyphs Miao Modi Mro Multani Nabataean New_Tai_Lue
  Newa Nko Ol_Chiki Old_Hungarian Old_Italic Old_North_Arabian Old_Permic Old_Persian Old_South_Arabian Old_Turkic Osage Osmanya
  Pahawh_Hmong Palmyrene Pau_Cin_Hau Phags_Pa Phoenician Psalter_Pahlavi Rejang Samaritan Saurashtra Sharada Shavian Siddham
  SignWriting Sora_Sompeng Sundanese Syloti_Nagri Tagalog Tagbanwa Tai_Le Tai_Tham Tai_Viet Takri Tangut Tifinagh Tirhuta Ugaritic
  Vai Warang_Citi`.split(/\s+/)

const HAN = /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\u30fc]/u

/** Japanese kana count as Han. The table is made on first use: hardly any tokenizer asks. */
export class Scripts {
  readonly #scripts = NAMES.map((name) => [name, new RegExp(`\\p{Script=${name}}`, 'u')] as const)

  /** `Any` for a space and for what has no script. */
  of(char: string): string {
    if (char === ' ') return 'Any'
    if (HAN.test(char)) return 'Han'
    return this.#scripts.find(([, regex]) => regex.test(char))?.[0] ?? 'Any'
  }
}
